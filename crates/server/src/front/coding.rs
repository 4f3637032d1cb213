//! The coding of bodies: as they are, or one zstd frame. A request's is in its `Content-Encoding`; which ones its answer may have, in
//! its `Accept-Encoding`.

use axum::http::{
    HeaderMap,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING},
};
use partial_sync_transport::wire::{BodyDecoder, ZSTD_CODING};

/// How a body comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    /// As it is.
    Identity,
    /// One zstd frame.
    Zstd,
}

impl Coding {
    /// What the head of a request says; `None`: another one, or several.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut said = headers.get_all(CONTENT_ENCODING).iter();
        match (
            said.next().map(|value| value.as_bytes().trim_ascii()),
            said.next(),
        ) {
            (None, _) => Some(Self::Identity),
            (Some(value), None) if value.eq_ignore_ascii_case(b"identity") => Some(Self::Identity),
            (Some(value), None) if value.eq_ignore_ascii_case(ZSTD_CODING.as_bytes()) => Some(Self::Zstd),
            _ => None,
        }
    }

    /// What undoes it.
    pub(super) fn decoder(self) -> BodyDecoder {
        BodyDecoder::new(self == Self::Zstd)
    }
}

/// Whether an answer may be one zstd frame. It has to be named: others know what they have said.
pub(crate) fn takes_zstd(headers: &HeaderMap) -> bool {
    let lists = headers.get_all(ACCEPT_ENCODING).iter();
    let texts = lists.filter_map(|list| list.to_str().ok());
    texts.flat_map(|list| list.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_zstd = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(ZSTD_CODING));
        is_zstd && !parts.any(is_refused)
    })
}

/// `q=0`, `q=0.000`, or no weight at all.
fn is_refused(parameter: &str) -> bool {
    let named = parameter.split_once('=');
    let weight = named.filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, weight)| !weight.trim().parse::<f32>().is_ok_and(|weight| weight > 0.0))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn an_answer_is_compressed_for_who_says_so_only() {
        for (said, takes) in [
            (&[][..], false),
            (&["zstd"], true),
            (&["gzip, deflate, br, ZSTD"], true),
            (&["gzip", "zstd ;q=0.5"], true),
            (&["zstd;q=1"], true),
            (&["*"], false),
            (&["gzip;q=0,identity"], false),
            (&["zstd;q=0"], false),
            (&["zstd; Q = 0.000, gzip"], false),
            (&["zstd;q=-1", "zstd;q=NaN", "zstd;q="], false),
            (&["zstdx, x-zstd"], false),
            (&["\u{ff}zstd", ",,;=,"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(
                    ACCEPT_ENCODING,
                    HeaderValue::from_bytes(value.as_bytes()).unwrap(),
                );
            }
            assert_eq!(takes_zstd(&headers), takes, "{said:?}");
        }
    }
}
