//! Whether a store keeps to its conditions: asked before anything is entrusted to it.

use bytes::Bytes;
use object_store::{Error as ObjectError, ObjectStoreExt, PutMode, PutOptions, UpdateVersion};

use crate::{
    bucket::{Bucket, Created},
    error::StoreError,
};

impl Bucket {
    /// Refuses a store that does not hold create-if-absent and compare-and-swap, with an object that is removed afterwards.
    ///
    /// # Errors
    /// [`StoreError::Unsafe`] if a condition does not hold; others if requests fail.
    pub async fn probe(&self) -> Result<(), StoreError> {
        let path = self.own(&format!("probe-{:016x}", fastrand::u64(..)));
        let result = self.probe_at(&path).await;
        // One that stays is in nobody's way.
        let removed = self.store().delete(&path).await;
        result?;
        removed.map_err(|error| self.failed("removing the probe", error))
    }

    async fn probe_at(&self, path: &object_store::path::Path) -> Result<(), StoreError> {
        let refuse = |what| {
            Err(StoreError::Unsafe {
                store: self.name(),
                what,
            })
        };
        let not_there = |what| {
            move |error| match error {
                StoreError::Request {
                    store,
                    source: ObjectError::NotImplemented { .. } | ObjectError::NotSupported { .. },
                    ..
                } => StoreError::Unsafe { store, what },
                error => error,
            }
        };
        let no_create = "it has no PUT that fails where an object is already";
        let no_swap = "it has no PUT that fails where an object has changed";
        let created = self
            .create_object(path, Bytes::from_static(b"1"), &"the probe")
            .await;
        let created = created.map_err(not_there(no_create))?;
        let again = self
            .create_object(path, Bytes::from_static(b"2"), &"the probe")
            .await;
        if again.map_err(not_there(no_create))? == Created::Done {
            return refuse(no_create);
        }
        let read = || async {
            let answer = self.store().get(path).await;
            let answer = answer.map_err(|error| self.failed("reading the probe", error))?;
            let version = UpdateVersion {
                e_tag: answer.meta.e_tag.clone(),
                version: answer.meta.version.clone(),
            };
            let bytes = answer.bytes().await;
            Ok((
                bytes.map_err(|error| self.failed("reading the probe", error))?,
                version,
            ))
        };
        let swap = |bytes, version| async move {
            let options = PutOptions::from(PutMode::Update(version));
            match self
                .store()
                .put_opts(path, Bytes::from_static(bytes).into(), options)
                .await
            {
                Ok(_) => Ok(true),
                Err(ObjectError::Precondition { .. } | ObjectError::AlreadyExists { .. }) => Ok(false),
                Err(error) => Err(not_there(no_swap)(self.failed("replacing the probe", error))),
            }
        };
        // What was not done by what the answer says was perhaps done before: the store's client repeats a request whose answer is lost.
        let (bytes, old) = match (read().await, created) {
            (Err(StoreError::Missing { .. }), Created::Exists) => {
                return refuse("it says of an object that was never written that it is there");
            }
            (read, _) => read?,
        };
        if bytes != "1" {
            return refuse("it gives back other bytes than were written");
        }
        if !swap(b"3", old.clone()).await? && read().await?.0 != "3" {
            return refuse("it says of an object that did not change that it changed");
        }
        if swap(b"4", old).await? {
            return refuse(no_swap);
        }
        match read().await?.0 == "3" {
            true => Ok(()),
            false => refuse("it gives back an older object than the one that was written"),
        }
    }
}
