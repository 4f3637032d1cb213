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

/// What is shown of a url of which it is not known what is secret.
const HIDDEN: &str = "...";

/// A url without what may be a secret: a user, a query, a fragment.
pub(crate) fn shown(url: &str) -> String {
    let (scheme, rest) = url.trim().split_once("://").unwrap_or(("", url.trim()));
    let (host, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    // A password with such a character in it, as keys of stores have them: it may end at any @.
    if host.contains(':') && behind.contains('@') {
        return HIDDEN.to_owned();
    }
    let path = behind.split(['?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    match scheme {
        "" => format!("{host}{path}"),
        scheme => format!("{scheme}://{host}{path}"),
    }
}

/// The variables of this process's environment that are text.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// The place of a database that is to be there already, with what its store needs taken from the environment. A folder that is not there
/// is not made.
///
/// # Errors
/// As of [`open`]; [`StoreError::NoDatabase`] if it is a folder that is not there.
pub fn open_existing(url: &str) -> Result<Bucket, StoreError> {
    check_there(url)?;
    open(url, environment())
}

/// Fails if a url names a folder that is not there.
fn check_there(url: &str) -> Result<(), StoreError> {
    let parsed = Url::parse(url.trim()).ok().filter(|url| url.scheme() == "file");
    match parsed.and_then(|url| url.to_file_path().ok()) {
        Some(folder) if !folder.is_dir() => Err(StoreError::NoDatabase { store: shown(url) }),
        _ => Ok(()),
    }
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
    let (variables, name) = (Arc::clone(variables), bucket.name());
    let scheme = |url: &str| {
        url.trim()
            .split_once("://")
            .map(|(scheme, _)| scheme.to_lowercase())
    };
    // Who can write to a bucket does not choose folders of those who read it.
    Ok(bucket.with_others(move |url| match scheme(url) == scheme(&name) {
        true => place(url, &variables),
        false => Err(StoreError::Url {
            url: shown(url),
            why: format!("head.json in {name} names it, which is in another kind of store"),
        }),
    }))
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
    if !url.username().is_empty() || url.password().is_some() || shown() == HIDDEN {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown_no_matter_what_is_in_it() {
        for secret in [
            "secret",
            "sec/ret",
            "sec?ret",
            "sec#ret",
            "s@ec/ret",
            "s/e@c@ret",
            "/sec",
            "ret:/",
        ] {
            let url = format!("s3://key:{secret}@bucket/app");
            let refused = open(&url, []).unwrap_err().to_string();
            for text in [shown(&url), refused] {
                let parts = ["sec", "ret", "key"];
                let told = parts
                    .iter()
                    .any(|part| text.replace("credentials", "").contains(part));
                assert!(!told, "{url}: {text}");
            }
        }
        assert_eq!(shown("s3://user:secret@bucket/a?b"), "s3://bucket/a");
        assert_eq!(shown(" s3://bucket/a@b?x=y@z "), "s3://bucket/a@b");
        assert_eq!(shown("s3://bucket:90/a"), "s3://bucket:90/a");
        assert_eq!(shown("file:///C:/a@b"), "file:///C:/a@b");
    }

    #[test]
    fn a_head_names_no_place_in_another_kind_of_store() {
        let folder = std::env::temp_dir().join(format!("partial-sync-{:016x}", fastrand::u64(..)));
        let url = Url::from_file_path(&folder).unwrap();
        let bucket = open("memory:///app", []).unwrap();
        let refused = bucket.other(url.as_str()).unwrap_err();
        assert!(matches!(refused, StoreError::Url { .. }), "{refused}");
        assert!(!folder.exists(), "a head has made a folder");
        let other = bucket.other("MEMORY:///other").unwrap();
        assert!(other.other(url.as_str()).is_err());
        assert!(other.other("memory:///app").is_ok());
    }
}
