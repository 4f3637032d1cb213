//! Proxies that are believed when they say for whom they ask.
//!
//! Each proxy adds the address that it was asked from to the end of `X-Forwarded-For`; what comes before that is what it was told, and
//! anyone can have written it. So the list is read from its end, and only as far as those are trusted who wrote it.

use std::net::{IpAddr, SocketAddr};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, Request},
};
use ipnet::{IpNet, Ipv4Net};

use super::activity::Peer;
use crate::error::ServerError;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Addresses of a request that are looked at.
const MOST: usize = 32;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Addresses, or networks like `10.0.0.0/8`.
    pub(crate) fn new(trusted: &[String]) -> Result<Self, ServerError> {
        let networks = trusted.iter().map(|text| {
            let bad = || ServerError::BadProxy(text.clone());
            let address = text.parse().map(|address: IpAddr| address.into());
            let network = address.or_else(|_| text.parse::<IpNet>());
            network.map(canonical).map_err(|_| bad())
        });
        networks.collect::<Result<_, _>>().map(Self)
    }

    /// Whether this is the address of one of them.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Makes a request that came through them one of its client.
    pub(crate) fn see_through(&self, request: &mut Request<Body>) {
        let Some(peer) = request.extensions().get::<Peer>() else {
            return;
        };
        let client = self.client(peer.address, request.headers());
        if let Some(peer) = request.extensions_mut().get_mut::<Peer>() {
            peer.address = client;
        }
    }

    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer;
        let lists = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut addresses = lists
            .flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b','))
            .take(MOST);
        while self.has(client) {
            // What cannot be read was told to the proxy that is known by then.
            match addresses.next().and_then(address) {
                Some(asked_from) => client = asked_from,
                None => break,
            }
        }
        client
    }
}

/// One of IPv4 as such, however it is written: addresses are compared so.
fn canonical(network: IpNet) -> IpNet {
    let length = network.prefix_len().checked_sub(96);
    match (network.addr(), length) {
        (IpAddr::V6(address), Some(length)) => address
            .to_ipv4_mapped()
            .and_then(|address| Ipv4Net::new(address, length).ok())
            .map_or(network, IpNet::V4),
        _ => network,
    }
}

/// With or without a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = bare.unwrap_or(text).parse();
    let address = address.or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn proxies(trusted: &[&str]) -> Proxies {
        let trusted: Vec<_> = trusted.iter().map(|text| (*text).to_owned()).collect();
        Proxies::new(&trusted).unwrap()
    }

    #[test]
    fn networks_have_the_addresses_that_begin_like_them() {
        for (network, inside, outside) in [
            ("10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.7.7.7/8", "10.0.0.1", "9.255.255.255"),
            ("192.0.2.128/25", "192.0.2.129", "192.0.2.127"),
            ("0.0.0.0/0", "203.0.113.9", "2001:db8::1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:11.0.0.1"),
            // Was red: nobody was trusted.
            ("::ffff:10.1.2.3", "10.1.2.3", "10.1.2.4"),
            ("::ffff:10.1.2.3", "::ffff:10.1.2.3", "::ffff:10.1.2.4"),
            ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.0"),
            ("::ffff:0:0/96", "203.0.113.9", "2001:db8::1"),
            ("::1", "::1", "::2"),
            ("fd00::/8", "fdff::1", "fe00::1"),
            ("2001:db8::/33", "2001:db8:7fff::", "2001:db8:8000::"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
        ] {
            let trusted = proxies(&[network]);
            assert!(trusted.has(inside.parse().unwrap()), "{network} {inside}");
            assert!(!trusted.has(outside.parse().unwrap()), "{network} {outside}");
        }
        for bad in [
            "",
            "localhost",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/",
            "::/129",
            "10.0.0/8",
            "1.2.3.4:80",
        ] {
            assert!(
                matches!(Proxies::new(&[bad.to_owned()]), Err(ServerError::BadProxy(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn the_client_is_the_last_address_that_no_trusted_proxy_has() {
        let trusted = proxies(&["127.0.0.1", "10.0.0.0/8"]);
        for (peer, headers, client) in [
            // Who is not trusted is believed nothing.
            ("203.0.113.1", &["198.51.100.7"][..], "203.0.113.1"),
            ("127.0.0.1", &[], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:127.0.0.1", &["198.51.100.7"], "198.51.100.7"),
            // The rest is what the client said.
            ("127.0.0.1", &["1.1.1.1, 198.51.100.7"], "198.51.100.7"),
            (
                "127.0.0.1",
                &["1.1.1.1, 198.51.100.7 ,10.0.0.2,10.9.9.9"],
                "198.51.100.7",
            ),
            (
                "127.0.0.1",
                &["1.1.1.1", "198.51.100.7", "10.0.0.2"],
                "198.51.100.7",
            ),
            ("127.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("127.0.0.1", &["198.51.100.7:4711"], "198.51.100.7"),
            ("127.0.0.1", &["2001:db8::7"], "2001:db8::7"),
            ("127.0.0.1", &["[2001:db8::7]"], "2001:db8::7"),
            ("127.0.0.1", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("127.0.0.1", &["::ffff:198.51.100.7"], "198.51.100.7"),
            // Nothing is guessed.
            ("127.0.0.1", &["198.51.100.7, unknown"], "127.0.0.1"),
            ("127.0.0.1", &["198.51.100.7, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("127.0.0.1", &["198.51.100.7,"], "127.0.0.1"),
            ("127.0.0.1", &[""], "127.0.0.1"),
        ] {
            let mut map = HeaderMap::new();
            for header in headers {
                map.append(FORWARDED_FOR, HeaderValue::from_static(header));
            }
            let found = trusted.client(peer.parse().unwrap(), &map);
            assert_eq!(found.to_canonical().to_string(), client, "{peer} {headers:?}");
        }
        let long = HeaderValue::try_from("10.0.0.1,".repeat(50_000) + "10.0.0.2").unwrap();
        let map = HeaderMap::from_iter([(FORWARDED_FOR, long)]);
        assert!(trusted.has(trusted.client("127.0.0.1".parse().unwrap(), &map)));
    }
}
