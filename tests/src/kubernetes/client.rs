//! Calls of the CRI by its published interface (`tests/cri/api.proto`): requests and answers are JSON with that file's
//! names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost_reflect::prost::Message;
use prost_reflect::prost::bytes::Bytes;
use prost_reflect::{
    DescriptorPool, DynamicMessage, MapKey, MethodDescriptor, ReflectMessage, Value as Field,
};
use serde_json::{Map, Value};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Longest that one call may take before its test fails, unless it says another time.
const LIMIT: Duration = Duration::from_secs(300);

/// What precedes a message in gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// A client of the CRI. Each call has a connection of its own, so that it outlives the server.
pub struct Cri {
    socket: PathBuf,
    interface: DescriptorPool,
    runtime: Runtime,
    limit: Duration,
}

/// A call that the server has refused.
#[derive(Debug)]
pub struct Refused {
    /// gRPC's status code, as text.
    pub code: String,
    /// What the server says.
    pub message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}: {}", self.code, self.message)
    }
}

impl Cri {
    /// One that calls the server on this socket.
    pub fn new(socket: &Path) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("cri");
        let mut compiler = protox::Compiler::new([directory]).expect("directory of api.proto");
        compiler.open_file("api.proto").expect("api.proto");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .expect("a runtime for connections");
        Self { socket: socket.to_owned(), interface: compiler.descriptor_pool(), runtime, limit: LIMIT }
    }

    /// Sets the longest time that one call may take.
    pub fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// Calls a method that must succeed.
    #[track_caller]
    pub fn call(&self, method: &str, request: Value) -> Value {
        self.attempt(method, request).unwrap_or_else(|refused| panic!("{method}: {refused}"))
    }

    /// Calls a method that must fail; what the server says.
    #[track_caller]
    pub fn refusal(&self, method: &str, request: Value) -> String {
        match self.attempt(method, request) {
            Ok(answer) => panic!("{method} succeeded: {answer:#}"),
            Err(refused) => refused.message,
        }
    }

    /// Calls a method.
    ///
    /// # Errors
    /// What the server refuses it with.
    pub fn attempt(&self, method: &str, request: Value) -> Result<Value, Refused> {
        let method = self.method(method);
        let message = DynamicMessage::deserialize(method.input(), request)
            .unwrap_or_else(|e| panic!("{} for {}: {e}", method.input().full_name(), method.full_name()));
        let path = format!("http://localhost/{}/{}", method.parent_service().full_name(), method.name());
        let answer = self.runtime.block_on(async {
            tokio::time::timeout(self.limit, exchange(&self.socket, &path, &message.encode_to_vec()))
                .await
                .unwrap_or_else(|_| panic!("{path}: no answer within {:?}", self.limit))
        })?;
        let answer =
            DynamicMessage::decode(method.output(), answer.as_slice()).expect("an answer of its type");
        Ok(json(&answer))
    }

    fn method(&self, name: &str) -> MethodDescriptor {
        let services: Vec<_> = self.interface.services().collect();
        services
            .iter()
            .flat_map(|service| service.methods())
            .find(|method| method.name() == name)
            .unwrap_or_else(|| panic!("the CRI has no {name}"))
    }
}

/// One call of gRPC: a prefixed message there, a prefixed message and the status back.
async fn exchange(socket: &Path, path: &str, message: &[u8]) -> Result<Vec<u8>, Refused> {
    let broken = |what: &str, e: &dyn fmt::Display| Refused {
        code: "none".to_owned(),
        message: format!("{what} {}: {e}", socket.display()),
    };
    let stream = UnixStream::connect(socket).await.map_err(|e| broken("cannot connect to", &e))?;
    let (client, connection) =
        h2::client::handshake(stream).await.map_err(|e| broken("no HTTP/2 with", &e))?;
    tokio::spawn(connection);
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request");
    let mut client = client.ready().await.map_err(|e| broken("lost", &e))?;
    let (response, mut sender) = client.send_request(request, false).map_err(|e| broken("lost", &e))?;
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).expect("a short message").to_be_bytes());
    frame.extend(message);
    sender.send_data(Bytes::from(frame), true).map_err(|e| broken("lost", &e))?;

    let (head, mut body) = response.await.map_err(|e| broken("lost", &e))?.into_parts();
    let mut answer = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(|e| broken("lost", &e))?;
        body.flow_control().release_capacity(chunk.len()).map_err(|e| broken("lost", &e))?;
        answer.extend(chunk);
    }
    let trailers = body.trailers().await.map_err(|e| broken("lost", &e))?;
    // A call that fails at once has its status in the head.
    let fields = trailers.unwrap_or(head.headers);
    let field = |name| fields.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match field("grpc-status") {
        Some(code) if code == "0" => Ok(answer.split_off(PREFIX)),
        code => Err(Refused {
            code: code.unwrap_or_default(),
            message: unescape(&field("grpc-message").unwrap_or_default()),
        }),
    }
}

/// Undoes percent-encoding, which gRPC has in its messages.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = (byte == b'%')
            .then(|| tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok()))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A message with all its fields. Bytes are text: what programs have written.
fn json(message: &DynamicMessage) -> Value {
    let descriptor = message.descriptor();
    let fields = descriptor.fields().map(|field| {
        let absent = field.supports_presence() && !message.has_field(&field);
        let enumeration = field.kind().as_enum().cloned();
        let value =
            if absent { Value::Null } else { value(&message.get_field(&field), enumeration.as_ref()) };
        (field.name().to_owned(), value)
    });
    Value::Object(fields.collect())
}

fn value(field: &Field, enumeration: Option<&prost_reflect::EnumDescriptor>) -> Value {
    match field {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => (*value).into(),
        Field::F64(value) => (*value).into(),
        Field::String(value) => value.as_str().into(),
        Field::Bytes(value) => String::from_utf8_lossy(value).into(),
        Field::EnumNumber(number) => match enumeration.and_then(|kind| kind.get_value(*number)) {
            Some(known) => known.name().into(),
            None => (*number).into(),
        },
        Field::Message(message) => json(message),
        Field::List(list) => list.iter().map(|entry| value(entry, enumeration)).collect(),
        Field::Map(map) => {
            let entries = map.iter().map(|(key, entry)| {
                let MapKey::String(key) = key else { panic!("a key that is no text: {key:?}") };
                (key.clone(), value(entry, enumeration))
            });
            Value::Object(entries.collect::<Map<_, _>>())
        }
    }
}
