//! Requests paired with their answers.
//!
//! The enums of [`crate::agent`] and [`crate::vmm`] are what goes over the wire. A [`Call`] is one of their requests as a type that
//! knows its answer, so that a client matches no responses: one place finds an answer that belongs to another request.

use std::ops::RangeInclusive;

use serde::{Serialize, de::DeserializeOwned};

/// The type of all answers of a protocol.
pub trait Response: DeserializeOwned {
    /// Why a request was refused.
    type Refusal;

    /// The answer, unless it is a refusal.
    ///
    /// # Errors
    /// The refusal.
    fn accepted(self) -> Result<Self, Self::Refusal>;
}

/// A request and the type of its answer.
pub trait Call {
    /// The type of all requests of the protocol.
    type Request: Serialize;
    /// The type of all answers of the protocol.
    type Response: Response;
    /// The type of the answer to this request.
    type Answer;

    /// The versions of the protocol that have this request.
    const VERSIONS: RangeInclusive<u16>;

    /// The request as it is sent.
    fn request(self) -> Self::Request;

    /// The answer; `None` for one that belongs to another request, or that is longer than it may be.
    fn answer(response: Self::Response) -> Option<Self::Answer>;
}

/// Defines [`Call`]s: for each its fields, the versions that have it, its request, and its answer.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        $name:ident($($field:ident: $type:ty),*) in $versions:expr,
        $request:expr => $response:pat $(if $guard:expr)? => $given:expr, $answer:ty;
    )*) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $name($(pub $type),*);

        impl $crate::call::Call for $name {
            type Request = Request;
            type Response = Response;
            type Answer = $answer;

            const VERSIONS: std::ops::RangeInclusive<u16> = $versions;

            fn request(self) -> Request {
                let Self($($field),*) = self;
                $request
            }

            fn answer(response: Response) -> Option<$answer> {
                match response {
                    $response $(if $guard)? => Some($given),
                    _ => None,
                }
            }
        }
    )* };
}

pub(crate) use calls;
