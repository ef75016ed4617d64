//! Lists and texts with a limit, enforced while they are decoded.
//!
//! A count on the wire is a claim: three bytes can announce a million rows. [`list`] refuses a count
//! above its limit before anything is allocated, and reserves little until elements have arrived, so
//! that what a frame costs stays near to what it weighs. The functions are for serde's
//! `deserialize_with`; [`List`] and [`Text`] are for fields that have no attribute of their own.
//!
//! Who sends keeps the same limits: `pages` cuts lists of rows, and batches, packs and lists of chunks
//! are made no longer.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serializer};

/// Elements that are reserved for on the word of a count alone.
const RESERVED_MAX: usize = 16;

/// Decodes a list of at most `MAX` elements.
pub(crate) fn list<'de, D, T, const MAX: usize>(from: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    List::<T, MAX>::deserialize(from).map(|list| list.0)
}

/// Decodes a text of at most `MAX` bytes.
pub(crate) fn text<'de, D, const MAX: usize>(from: D) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
{
    Text::<MAX>::deserialize(from).map(|text| text.0)
}

/// Decodes at most `MAX` bytes of content in one piece.
pub(crate) fn bytes<'de, D, const MAX: usize>(from: D) -> Result<Vec<u8>, D::Error>
where
    D: Deserializer<'de>,
{
    from.deserialize_bytes(BytesVisitor::<MAX>)
}

/// Encodes content in one piece, and not byte by byte; on the wire it is the same.
pub(crate) fn as_bytes<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.serialize_bytes(bytes)
}

/// A list of at most `MAX` elements.
pub(crate) struct List<T, const MAX: usize>(pub(crate) Vec<T>);

/// A text of at most `MAX` bytes.
pub(crate) struct Text<const MAX: usize>(pub(crate) String);

impl<T, const MAX: usize> From<List<T, MAX>> for Vec<T> {
    fn from(list: List<T, MAX>) -> Self {
        list.0
    }
}

impl<const MAX: usize> From<Text<MAX>> for String {
    fn from(text: Text<MAX>) -> Self {
        text.0
    }
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for List<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(ListVisitor::<T, MAX>(PhantomData))
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Text<MAX> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(TextVisitor::<MAX>)
    }
}

struct ListVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for ListVisitor<T, MAX> {
    type Value = List<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let announced = elements.size_hint().unwrap_or_default();
        if announced > MAX {
            return Err(A::Error::invalid_length(announced, &self));
        }
        let mut list = Vec::with_capacity(announced.min(RESERVED_MAX));
        while let Some(element) = elements.next_element()? {
            if list.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            list.push(element);
        }
        Ok(List(list))
    }
}

struct TextVisitor<const MAX: usize>;

impl<const MAX: usize> Visitor<'_> for TextVisitor<MAX> {
    type Value = Text<MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a text of at most {MAX} bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.len() > MAX {
            return Err(E::invalid_length(text.len(), &self));
        }
        Ok(Text(text.to_owned()))
    }
}

struct BytesVisitor<const MAX: usize>;

impl<'de, const MAX: usize> Visitor<'de> for BytesVisitor<MAX> {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {MAX} bytes")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        if bytes.len() > MAX {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        Ok(bytes.to_vec())
    }

    // A format without a type for bytes has a list of numbers.
    fn visit_seq<A: SeqAccess<'de>>(self, elements: A) -> Result<Self::Value, A::Error> {
        let visitor = ListVisitor::<u8, MAX>(PhantomData);
        visitor.visit_seq(elements).map(|list| list.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Limited {
        #[serde(deserialize_with = "list::<_, _, 3>")]
        list: Vec<u32>,
        #[serde(deserialize_with = "text::<_, 4>")]
        text: String,
        #[serde(deserialize_with = "bytes::<_, 2>")]
        bytes: Vec<u8>,
    }

    /// Encodes as the unlimited twin does, so that the two agree on the bytes.
    fn decode(list: &[u32], text: &str, bytes: &[u8]) -> Result<Limited, postcard::Error> {
        let mut encoded = postcard::to_extend(&(list, text), Vec::new()).unwrap();
        encoded = postcard::to_extend(bytes, encoded).unwrap();
        postcard::from_bytes(&encoded)
    }

    #[test]
    fn what_is_at_the_limit_is_taken_and_what_is_above_is_not() {
        let taken = Limited {
            list: vec![1, 2, 3],
            text: "text".into(),
            bytes: vec![8, 9],
        };
        assert_eq!(decode(&[1, 2, 3], "text", &[8, 9]), Ok(taken));
        assert!(decode(&[1, 2, 3, 4], "text", &[8, 9]).is_err());
        assert!(decode(&[1, 2, 3], "texts", &[8, 9]).is_err());
        assert!(decode(&[1, 2, 3], "text", &[8, 9, 10]).is_err());
    }

    #[test]
    fn a_format_that_announces_nothing_is_limited_too() {
        let json = |list: &str| {
            serde_json::from_str::<Limited>(&format!(
                r#"{{"list":{list},"text":"a","bytes":[1,2]}}"#
            ))
        };
        assert_eq!(json("[1,2,3]").unwrap().list, [1, 2, 3]);
        assert!(json("[1,2,3,4]").is_err());
    }
}
