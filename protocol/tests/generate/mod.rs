//! Values of a type, found by what its `Deserialize` asks for: one for each variant of each enum in it, so that a new variant
//! cannot be left out. All numbers in a value differ, so that fields which change places are seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, SeqAccess,
    VariantAccess, Visitor,
};

/// Enums by name, and which of their variants is taken; where nothing is said, the first.
type Choice = BTreeMap<&'static str, usize>;

/// A value for each variant of each enum that there is in `T`. What is added at the end of an enum adds values, and changes none.
pub fn values<T: DeserializeOwned>() -> Vec<T> {
    let mut values = Vec::new();
    let mut known = BTreeSet::new();
    let mut waiting = VecDeque::from([Choice::new()]);
    while let Some(choice) = waiting.pop_front() {
        let mut generator = Generator { choice: &choice, enums: BTreeMap::new(), numbers: 0 };
        values.push(T::deserialize(&mut generator).unwrap());
        for (name, variants) in generator.enums {
            for variant in 1..variants.len() {
                if !choice.contains_key(name) && known.insert((name, variant)) {
                    let mut choice = choice.clone();
                    choice.insert(name, variant);
                    waiting.push_back(choice);
                }
            }
        }
    }
    values
}

struct Generator<'a> {
    choice: &'a Choice,
    /// The enums that have been met, with the names of their variants.
    enums: BTreeMap<&'static str, &'static [&'static str]>,
    numbers: u8,
}

impl Generator<'_> {
    fn number(&mut self) -> u8 {
        self.numbers += 1;
        self.numbers
    }
}

#[derive(Debug)]
struct Unknown(String);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unknown {}

impl de::Error for Unknown {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// Numbers of more than one byte have a value of more than one byte.
macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty, $add:expr;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
            visitor.$visit(<$type>::from(self.number()) + $add)
        }
    )* };
}

impl<'de> Deserializer<'de> for &mut Generator<'_> {
    type Error = Unknown;

    numbers! {
        deserialize_u8 visit_u8 u8, 0;
        deserialize_u16 visit_u16 u16, 1000;
        deserialize_u32 visit_u32 u32, 100_000;
        deserialize_u64 visit_u64 u64, 10_000_000_000;
        deserialize_i16 visit_i16 i16, -1000;
        deserialize_i32 visit_i32 i32, -100_000;
        deserialize_i64 visit_i64 i64, -10_000_000_000;
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        visitor.visit_i8(-(self.number() as i8))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        visitor.visit_bool(true)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        visitor.visit_string(format!("s{}", self.number()))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Unknown> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unknown> {
        visitor.visit_seq(Items(self, 1))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Unknown> {
        visitor.visit_seq(Items(self, length))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unknown> {
        visitor.visit_seq(Items(self, fields.len()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unknown> {
        self.enums.insert(name, variants);
        let variant = self.choice.get(name).copied().unwrap_or_default();
        visitor.visit_enum(Variant(self, variant as u32))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unknown> {
        Err(Unknown("no message has such a field; teach the generator".into()))
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! { f32 f64 char bytes byte_buf unit_struct tuple_struct map identifier ignored_any }
}

struct Items<'a, 'b>(&'a mut Generator<'b>, usize);

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Unknown;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Unknown> {
        if self.1 == 0 {
            return Ok(None);
        }
        self.1 -= 1;
        seed.deserialize(&mut *self.0).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.1)
    }
}

struct Variant<'a, 'b>(&'a mut Generator<'b>, u32);

impl<'de, 'a, 'b> EnumAccess<'de> for Variant<'a, 'b> {
    type Error = Unknown;
    type Variant = Content<'a, 'b>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Content<'a, 'b>), Unknown> {
        let index: de::value::U32Deserializer<Unknown> = self.1.into_deserializer();
        Ok((seed.deserialize(index)?, Content(self.0)))
    }
}

struct Content<'a, 'b>(&'a mut Generator<'b>);

impl<'de> VariantAccess<'de> for Content<'_, '_> {
    type Error = Unknown;

    fn unit_variant(self) -> Result<(), Unknown> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Unknown> {
        seed.deserialize(self.0)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Unknown> {
        self.0.deserialize_tuple(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unknown> {
        self.0.deserialize_tuple(fields.len(), visitor)
    }
}
