//! Which properties a type has that serde reads from JSON.
//!
//! A derived `Deserialize` tells its deserializer the names of all fields. So this deserializer makes up a value for
//! whatever is asked for, with every field of every structure once, and writes down the paths.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess,
    Visitor, value::StrDeserializer,
};
use serde::forward_to_deserialize_any;

/// The paths of all fields that are no structures themselves, in order: `process.rlimits[].type`.
///
/// # Errors
/// A value that was made up and is none of the type's: then some paths are missing.
pub fn of<T: DeserializeOwned>() -> Result<Vec<String>, Failure> {
    let mut paths = Vec::new();
    T::deserialize(MakesUp { path: String::new(), paths: &mut paths })?;
    Ok(paths)
}

/// Why not.
#[derive(Debug)]
pub struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl serde::de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Makes up the value at a path.
struct MakesUp<'a> {
    path: String,
    paths: &'a mut Vec<String>,
}

impl MakesUp<'_> {
    fn at(&mut self, path: String) -> MakesUp<'_> {
        MakesUp { path, paths: self.paths }
    }

    /// Lists and maps of plain values are one property.
    fn record(&mut self) {
        let path = self.path.trim_end_matches("[]").to_owned();
        if self.paths.last() != Some(&path) {
            self.paths.push(path);
        }
    }

    /// A text that is what is asked for there.
    fn text(&self) -> &'static str {
        if self.path.starts_with("process.capabilities.") { "CAP_CHOWN" } else { "0" }
    }
}

macro_rules! plain {
    ($($ask:ident => $answer:ident($value:expr)),* $(,)?) => {$(
        fn $ask<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failure> {
            self.record();
            visitor.$answer($value)
        }
    )*};
}

impl<'de> Deserializer<'de> for MakesUp<'_> {
    type Error = Failure;

    plain! {
        deserialize_bool => visit_bool(true),
        deserialize_i8 => visit_i8(1),
        deserialize_i16 => visit_i16(1),
        deserialize_i32 => visit_i32(1),
        deserialize_i64 => visit_i64(1),
        deserialize_u8 => visit_u8(1),
        deserialize_u16 => visit_u16(1),
        deserialize_u32 => visit_u32(1),
        deserialize_u64 => visit_u64(1),
        deserialize_f32 => visit_f32(1.0),
        deserialize_f64 => visit_f64(1.0),
    }

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failure> {
        self.record();
        visitor.visit_unit()
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Failure> {
        self.record();
        visitor.visit_str(self.text())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        visitor.visit_map(Fields { of: self, left: fields.iter() })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_seq(One { of: self, left: true })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failure> {
        visitor.visit_map(One { of: self, left: true })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failure> {
        self.record();
        visitor.visit_enum(Variant(variants.first().copied().unwrap_or_default()))
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// The fields of a structure.
struct Fields<'a> {
    of: MakesUp<'a>,
    left: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        let next = self.left.as_slice().first();
        next.map(|name| seed.deserialize(StrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let name = self.left.next().copied().unwrap_or_default();
        let dot = if self.of.path.is_empty() { "" } else { "." };
        let path = format!("{}{dot}{name}", self.of.path);
        seed.deserialize(self.of.at(path))
    }
}

/// One entry of a list or a map.
struct One<'a> {
    of: MakesUp<'a>,
    left: bool,
}

impl<'de> SeqAccess<'de> for One<'_> {
    type Error = Failure;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Failure> {
        if !std::mem::replace(&mut self.left, false) {
            return Ok(None);
        }
        let path = format!("{}[]", self.of.path);
        seed.deserialize(self.of.at(path)).map(Some)
    }
}

impl<'de> MapAccess<'de> for One<'_> {
    type Error = Failure;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Failure> {
        if !std::mem::replace(&mut self.left, false) {
            return Ok(None);
        }
        seed.deserialize(StrDeserializer::new("0")).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Failure> {
        let path = format!("{}[]", self.of.path);
        seed.deserialize(self.of.at(path))
    }
}

/// A variant without content.
struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = Failure;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failure> {
        Ok((seed.deserialize(StrDeserializer::new(self.0))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant {
    type Error = Failure;

    fn unit_variant(self) -> Result<(), Failure> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _seed: T) -> Result<T::Value, Failure> {
        Err(self.unexpected())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, _visitor: V) -> Result<V::Value, Failure> {
        Err(self.unexpected())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Failure> {
        Err(self.unexpected())
    }
}

impl Variant {
    fn unexpected(self) -> Failure {
        Failure(format!("variant {} has content, which this cannot make up", self.0))
    }
}
