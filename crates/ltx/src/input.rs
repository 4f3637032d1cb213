//! Bytes that are read in order, with how many they were: every error says where it is.

use std::io::{ErrorKind, Read};

use crate::error::LtxError;

#[derive(Debug)]
pub(crate) struct Input<R> {
    read: R,
    at: u64,
}

impl<R: Read> Input<R> {
    /// Bytes that begin at offset `at` of the file.
    pub(crate) fn new(read: R, at: u64) -> Self {
        Self { read, at }
    }

    /// The offset of the next byte.
    pub(crate) fn at(&self) -> u64 {
        self.at
    }

    /// Fills `bytes`, which are a piece of `part`.
    pub(crate) fn fill(&mut self, bytes: &mut [u8], part: &'static str) -> Result<(), LtxError> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.some(&mut bytes[filled..])? {
                0 => return Err(LtxError::Cut { at: self.at, part }),
                n => filled += n,
            }
        }
        Ok(())
    }

    /// The next bytes, which are a piece of `part`.
    pub(crate) fn array<const N: usize>(&mut self, part: &'static str) -> Result<[u8; N], LtxError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, part)?;
        Ok(bytes)
    }

    /// Whether no byte follows; takes one if one does.
    pub(crate) fn is_at_end(&mut self) -> Result<bool, LtxError> {
        Ok(self.some(&mut [0])? == 0)
    }

    fn some(&mut self, bytes: &mut [u8]) -> Result<usize, LtxError> {
        loop {
            match self.read.read(bytes) {
                // What claims to have read more than there is room for is not believed.
                Ok(n) => {
                    let n = n.min(bytes.len());
                    self.at += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(LtxError::Read { at: self.at, source }),
            }
        }
    }
}
