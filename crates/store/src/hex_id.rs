//! Transaction ids in JSON: like other numbers of 64 bits; 0 is none.

use partial_sync_ltx::TxId;
use serde::{Deserializer, Serializer};

use crate::hex;

pub(crate) fn serialize<S: Serializer>(id: &Option<TxId>, to: S) -> Result<S::Ok, S::Error> {
    hex::serialize(&id.map_or(0, TxId::get), to)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<TxId>, D::Error> {
    Ok(TxId::new(hex::deserialize(from)?))
}
