//! A url and the usual environment variables -> the place of a database.
//!
//! Credentials come from the environment only, as the stores' own programs take them (`AWS_*`, `GOOGLE_*`, `AZURE_*`): a url is shown
//! in logs and errors.

use std::{
    path::Path as FilePath,
    sync::{Arc, LazyLock},
};

use object_store::{memory::InMemory, path::Path};
use url::Url;

use crate::{bucket::Bucket, error::StoreError, folder::Folder, layout::Layout};

/// What urls look like, for errors.
const FORMS: &str = "It should look like s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH, file:///FOLDER or memory:///NAME";

/// All databases in the memory of this process.
static MEMORY: LazyLock<Arc<InMemory>> = LazyLock::new(|| Arc::new(InMemory::new()));

/// A url without what may be a secret: a user, a query, a fragment.
pub(crate) fn shown(url: &str) -> String {
    let text = url.trim().split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = host.rsplit('@').next().unwrap_or_default();
    match scheme {
        "" => format!("{host}{path}"),
        scheme => format!("{scheme}://{host}{path}"),
    }
}

/// The folder that a url names, if it is one of a folder.
#[cfg(feature = "remote")]
pub(crate) fn folder(url: &str) -> Option<std::path::PathBuf> {
    let url = Url::parse(url.trim()).ok().filter(|url| url.scheme() == "file")?;
    url.to_file_path().ok()
}

/// The place of a database that a url names. `variables` are those of the environment, as [`std::env::vars`] gives them. Nothing is
/// asked of the store yet.
///
/// ```
/// # fn main() -> Result<(), partial_sync_store::StoreError> {
/// let place = partial_sync_store::open("memory:///app", std::env::vars())?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`StoreError::Url`] if the url is not one of these, or if what its store needs is not in the environment.
pub fn open(url: &str, variables: impl IntoIterator<Item = (String, String)>) -> Result<Bucket, StoreError> {
    let variables: Arc<[_]> = variables.into_iter().collect();
    place(url, &variables)
}

fn place(url: &str, variables: &Arc<[(String, String)]>) -> Result<Bucket, StoreError> {
    let bucket = place_alone(url, variables)?;
    let variables = Arc::clone(variables);
    Ok(bucket.with_others(move |url| place(url, &variables)))
}

fn place_alone(url: &str, variables: &[(String, String)]) -> Result<Bucket, StoreError> {
    let text = url.trim();
    let shown = || shown(text);
    let refuse = |why: String| StoreError::Url {
        url: shown(),
        why: format!("{why}. {FORMS}"),
    };
    let url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
    if !text.contains("://") {
        return Err(refuse("it has no ://".to_owned()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        let why = "it holds a user name or password; credentials are taken from the environment";
        return Err(refuse(why.to_owned()));
    }
    if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
        let why = "it holds a query, a fragment or a port; where the store is and what it is told is taken from the environment";
        return Err(refuse(why.to_owned()));
    }
    let prefix = || Path::from_url_path(url.path()).map_err(|error| refuse(error.to_string()));
    let host = url.host_str().unwrap_or_default();
    match (url.scheme(), host.is_empty()) {
        ("memory", true) => Ok(Bucket::new(MEMORY.clone(), prefix()?, Layout::Plain, shown())),
        ("file", true) => {
            let folder = url
                .to_file_path()
                .map_err(|()| refuse("it is not the path of a folder".to_owned()))?;
            if folder == FilePath::new("/") {
                return Err(refuse("it is the folder of all folders".to_owned()));
            }
            let folder = Folder::new(&folder).map_err(|error| refuse(error.to_string()))?;
            Ok(Bucket::new(
                Arc::new(folder),
                Path::default(),
                Layout::Plain,
                shown(),
            ))
        }
        ("memory" | "file", false) => Err(refuse("it has a host: write three slashes".to_owned())),
        ("s3" | "gs" | "az", true) => Err(refuse("it names no bucket".to_owned())),
        #[cfg(feature = "cloud")]
        (scheme @ ("s3" | "gs" | "az"), false) => {
            let (store, layout, clock) = crate::cloud::connect(scheme, host, variables).map_err(&refuse)?;
            Ok(Bucket::new(store, prefix()?, layout, shown()).with_clock(clock))
        }
        #[cfg(not(feature = "cloud"))]
        ("s3" | "gs" | "az", false) => {
            let _ = variables;
            Err(refuse(
                "this program was built without clients of clouds".to_owned(),
            ))
        }
        _ => Err(refuse(
            "its scheme is not one of s3, gs, az, file, memory".to_owned(),
        )),
    }
}
