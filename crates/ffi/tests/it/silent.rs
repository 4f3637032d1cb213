//! A proxy in front of a server that can be told to keep silent: it then takes requests and answers none.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::Duration,
};

#[derive(Default)]
struct State {
    hanging: bool,
    /// Bytes were swallowed since somebody waited for that last.
    swallowed: bool,
    /// Connections that lost bytes: they cannot continue when the proxy answers again.
    broken: Vec<TcpStream>,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// See the top of this file.
pub(crate) struct Silent {
    addr: SocketAddr,
    shared: Shared,
}

impl Silent {
    pub(crate) fn in_front_of(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Shared::default();
        let for_connections = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else {
                    return;
                };
                forward(client, server, &for_connections);
            }
        });
        Self { addr, shared }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Swallows every request from now on.
    pub(crate) fn hang(&self) {
        let mut state = self.shared.0.lock().unwrap();
        state.hanging = true;
        state.swallowed = false;
    }

    /// Goes on; connections whose requests were swallowed end.
    pub(crate) fn answer(&self) {
        let mut state = self.shared.0.lock().unwrap();
        state.hanging = false;
        for connection in state.broken.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Returns once a request was swallowed that nobody waited for yet.
    pub(crate) fn wait_for_a_request(&self) {
        let (state, changed) = &*self.shared;
        let (mut state, timeout) = changed
            .wait_timeout_while(state.lock().unwrap(), Duration::from_secs(60), |s| !s.swallowed)
            .unwrap();
        assert!(!timeout.timed_out(), "no request came");
        state.swallowed = false;
    }
}

fn forward(client: TcpStream, server: TcpStream, shared: &Shared) {
    let (mut from_server, mut to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    let (mut client, mut server, shared) = (client, server, shared.clone());
    thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(n @ 1..) = client.read(&mut buffer) {
            let (state, changed) = &*shared;
            let mut state = state.lock().unwrap();
            if state.hanging {
                state.swallowed = true;
                state.broken.push(client.try_clone().unwrap());
                changed.notify_all();
                continue;
            }
            drop(state);
            if server.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        let _ = server.shutdown(Shutdown::Both);
    });
}
