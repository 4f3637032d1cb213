//! Query selectors over real HTTP: the pages that a SELECT touches, at any revision, and nothing but a SELECT.

use std::{
    num::NonZeroU64,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use futures_util::{StreamExt, TryStreamExt};
use partial_sync_core::PageNo;
use partial_sync_server::{
    Server, ServerBuilder, ServerHandle,
    pages::{QueryError, QueryLimits, QueryRunner, RevisionReader, Touched},
};
use partial_sync_transport::{
    HttpRemote, PageSelector, PageStream, PagesRequest, Remote, RemoteError, RemoteErrorKind,
};
use roaring::RoaringBitmap;

struct Served {
    server: ServerHandle,
    remote: HttpRemote,
    folder: tempfile::TempDir,
}

fn served(limits: QueryLimits) -> Served {
    served_by(|server| server.query_limits(limits))
}

fn served_by(options: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("remote.db");
    let conn = rusqlite::Connection::open(&file).unwrap();
    conn.execute_batch(
        "create table t(id integer primary key, k text, pad blob);
         with recursive c(x) as (select 1 union all select x + 1 from c where x < 20000)
         insert into t select x, printf('key %06d', x * 7919 % 20000), zeroblob(200) from c;
         create index tk on t(k);
         create virtual table f using fts5(words); insert into f select 'word ' || id from t limit 500;",
    )
    .unwrap();
    drop(conn);
    let server = options(Server::builder(&file))
        .start_blocking("127.0.0.1:0")
        .unwrap();
    let remote = HttpRemote::builder(server.url()).build().unwrap();
    Served {
        server,
        remote,
        folder,
    }
}

impl Served {
    fn ask(&self, request: PagesRequest) -> Result<(String, RoaringBitmap), RemoteError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let answer = self.remote.pages(request).await?;
            let revision = answer.header.revision.as_str().to_owned();
            let ids = answer.pages.map_ok(|p| p.id.0).try_collect::<Vec<_>>().await?;
            Ok((revision, ids.into_iter().collect()))
        })
    }

    fn query(&self, sql: &str) -> Result<RoaringBitmap, RemoteError> {
        Ok(self
            .ask(PagesRequest {
                query: Some(sql.into()),
                ..PagesRequest::default()
            })?
            .1)
    }
}

#[test]
fn a_query_brings_the_pages_it_touches_and_the_first_page() {
    let served = served(QueryLimits::default());
    let point = served.query("select k from t where id = 12345").unwrap();
    assert!(point.contains(0) && (3..=6).contains(&point.len()), "{point:?}");
    let nothing = served.query("select 1").unwrap();
    assert!(nothing.contains(0), "{nothing:?}");
    let all = served
        .query("with a as (select * from t) select count(pad), max(k) from a")
        .unwrap();
    let index = served
        .query("select k from t where k > 'key 01' and k < 'key 011'")
        .unwrap();
    assert!(
        all.len() > 900 && index.len() < 100,
        "{} {}",
        all.len(),
        index.len()
    );
    assert!(
        served
            .query("select * from f where f match 'word' limit 3")
            .unwrap()
            .len()
            > 3
    );
    assert!(served.query("select value from generate_series(1, 3)").is_ok());
    served.server.shutdown_blocking();
}

#[test]
fn a_query_sees_the_revision_that_it_is_pinned_to() {
    let served = served(QueryLimits::default());
    let (before, _) = served
        .ask(PagesRequest {
            query: Some("select 1".into()),
            ..PagesRequest::default()
        })
        .unwrap();
    let conn = rusqlite::Connection::open(served.folder.path().join("remote.db")).unwrap();
    conn.execute_batch("create table later(x); insert into later values (1)")
        .unwrap();
    let sql = "select * from later";
    assert!(served.query(sql).is_ok());
    let pinned = PagesRequest {
        query: Some(sql.into()),
        revision: partial_sync_core::Revision::new(before),
        ..PagesRequest::default()
    };
    let error = served.ask(pinned).unwrap_err();
    assert!(error.message.contains("no such table: later"), "{error}");
    drop(conn);
    served.server.shutdown_blocking();
}

#[test]
fn only_a_single_select_runs() {
    let served = served(QueryLimits::default());
    for sql in [
        "-- nothing",
        "delete from t",
        "insert into t(id) values (99999999) returning id",
        "select 1; select 2",
        "select 1; drop table t",
        "pragma table_info(t)",
        "select * from pragma_table_info('t')",
        "explain select 1",
        "begin",
        "attach 'x.db' as x",
        "vacuum into 'copy.db'",
        "select load_extension('x')",
        "create temp table x(y)",
    ] {
        let error = served.query(sql).unwrap_err();
        assert_eq!(error.kind, RemoteErrorKind::Refused, "{sql}: {error}");
    }
    let error = served.query("select * from nowhere").unwrap_err();
    assert!(error.message.contains("no such table: nowhere"), "{error}");
    let count = rusqlite::Connection::open(served.folder.path().join("remote.db"))
        .unwrap()
        .query_row("select count(*) from t", [], |r| r.get::<_, i64>(0));
    assert_eq!(count.unwrap(), 20000);
    served.server.shutdown_blocking();
}

#[test]
fn a_query_has_a_time_and_a_page_budget() {
    let limits = QueryLimits {
        time: Duration::from_millis(300),
        pages: 50,
        ..QueryLimits::default()
    };
    let served = served(limits);
    let endless = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c";
    let error = served.query(endless).unwrap_err();
    assert!(error.message.contains("more than 300 ms"), "{error}");
    let error = served.query("select sum(length(pad)) from t").unwrap_err();
    assert!(error.message.contains("more than 50 pages"), "{error}");
    assert!(served.query("select k from t where id = 5").is_ok());
    served.server.shutdown_blocking();
}

#[test]
fn v1_no_instruction_of_a_query_takes_the_product_of_two_lengths() {
    let served = served(QueryLimits::default());
    for sql in [
        "select instr(printf('%.*c', 3000000, 'a'), printf('%.*cb', 1500000, 'a'))",
        "select length(replace(printf('%.*c', 3000000, 'a'), printf('%.*cb', 1500000, 'a'), ''))",
    ] {
        served.query(sql).unwrap();
    }
    let error = served
        .query("select 'a' like printf('%.*c', 257, 'a')")
        .unwrap_err();
    assert!(error.message.contains("pattern too complex"), "{error}");
    served.server.shutdown_blocking();
}

#[test]
fn v3_a_query_has_a_memory_budget() {
    let limits = QueryLimits {
        memory_bytes: Some(96 << 20),
        ..QueryLimits::default()
    };
    let served = served(limits);
    let error = served.query("select length(hex(zeroblob(9000000)))").unwrap_err();
    assert!(error.message.contains("too big"), "{error}");
    let columns: Vec<_> = (0..16)
        .map(|n| format!("length(group_concat(hex(zeroblob({})), ''))", 50_000 + n))
        .collect();
    let sql = format!("select {} from generate_series(1, 100)", columns.join(", "));
    let error = served.query(&sql).unwrap_err();
    assert!(error.message.contains("bytes of memory together"), "{error}");
    assert!(served.query("select k from t where id = 5").is_ok());
    served.server.shutdown_blocking();
}

#[test]
fn v5_a_query_has_a_budget_of_temporary_space() {
    let limits = QueryLimits {
        temporary_bytes: 16 << 20,
        ..QueryLimits::default()
    };
    let served = served(limits);
    let sort = |rows: u32| {
        format!(
            "select count(*) from (select value from generate_series(1, {rows})
             order by printf('%0500d', value * 7919 % 1000003) limit -1 offset 1)"
        )
    };
    let error = served.query(&sort(50_000)).unwrap_err();
    assert!(error.message.contains("more temporary space"), "{error}");
    served.query(&sort(10_000)).unwrap();
    served.server.shutdown_blocking();
}

/// A request for page 1, with a statement of which the pages come along.
fn along(sql: &str) -> PagesRequest {
    PagesRequest {
        select: PageSelector::Ids((0..1).collect()),
        query: Some(sql.into()),
        have: Some((20..30).collect()),
        ..PagesRequest::default()
    }
}

async fn next(answer: &mut PageStream) -> Option<u32> {
    answer.pages.next().await.map(|page| page.unwrap().id.0)
}

/// Touches the pages that the test says, until it says no more or nobody wants to know.
struct Told {
    pages: Mutex<mpsc::Receiver<u32>>,
    ended: Mutex<mpsc::Sender<bool>>,
}

impl QueryRunner for Told {
    fn run(
        &self,
        _: &RevisionReader,
        _: &str,
        _: &QueryLimits,
        touched: &Arc<Touched>,
    ) -> Result<(), QueryError> {
        let pages = self.pages.lock().unwrap();
        while !touched.is_stopped() {
            match pages.recv_timeout(Duration::from_millis(1)) {
                Ok(page) => drop(touched.note(PageNo::new(page).unwrap())),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
        }
        self.ended.lock().unwrap().send(touched.is_stopped()).unwrap();
        Ok(())
    }
}

fn told() -> (Served, mpsc::Sender<u32>, mpsc::Receiver<bool>) {
    let (say, pages) = mpsc::channel();
    let (ended, ends) = mpsc::channel();
    let runner = Told {
        pages: Mutex::new(pages),
        ended: Mutex::new(ended),
    };
    (served_by(|server| server.queries(runner)), say, ends)
}

/// Every page waited for the end of the statement.
#[test]
fn pages_that_are_waited_for_come_before_a_statement_ends_and_others_when_it_touches_them() {
    let (served, say, ends) = told();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut answer = served.remote.pages(along("select 1")).await.unwrap();
        assert_eq!(next(&mut answer).await, Some(0));
        say.send(1).unwrap();
        say.send(26).unwrap();
        say.send(11).unwrap();
        say.send(11).unwrap();
        assert_eq!(
            next(&mut answer).await,
            Some(10),
            "page 1 came, and id 25 is here"
        );
        say.send(9).unwrap();
        assert_eq!(next(&mut answer).await, Some(8));
        assert!(ends.try_recv().is_err(), "it runs");
        drop(say);
        assert_eq!(next(&mut answer).await, None);
        assert!(!ends.recv().unwrap(), "it was not stopped");
    });
    served.server.shutdown_blocking();
}

#[test]
fn a_statement_whose_client_goes_away_is_stopped() {
    for most in [0, 2, u64::MAX] {
        let (served, say, ends) = told();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let request = PagesRequest {
                most_along: NonZeroU64::new(most),
                ..along("select 1")
            };
            let mut answer = served.remote.pages(request).await.unwrap();
            say.send(9).unwrap();
            assert_eq!(next(&mut answer).await, Some(0));
            assert_eq!(next(&mut answer).await, Some(8));
            assert!(ends.try_recv().is_err(), "it runs");
        });
        drop(runtime);
        assert!(
            ends.recv_timeout(Duration::from_secs(60)).unwrap(),
            "it was stopped"
        );
        served.server.shutdown_blocking();
    }
}

/// The client left the answer, and what was on its way was lost.
#[test]
fn an_answer_ends_with_the_last_page_that_the_client_takes_and_so_does_its_statement() {
    let (served, say, ends) = told();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let request = PagesRequest {
            most_along: NonZeroU64::new(3),
            ..along("select 1")
        };
        let mut answer = served.remote.pages(request).await.unwrap();
        assert_eq!(next(&mut answer).await, Some(0));
        // Page 1 is asked for and 26 is here: neither is counted, nor is one that is touched twice.
        for page in [1, 26, 11, 11, 9] {
            say.send(page).unwrap();
        }
        let mut came = vec![next(&mut answer).await, next(&mut answer).await];
        came.sort();
        assert_eq!(came, [Some(8), Some(10)]);
        assert!(ends.try_recv().is_err(), "there is one more");
        say.send(600).unwrap();
        assert_eq!(next(&mut answer).await, Some(599));
        assert_eq!(next(&mut answer).await, None);
        assert!(ends.recv().unwrap(), "it was stopped");
    });
    drop(say);
    served.server.shutdown_blocking();
}

/// Those that it touches first, whichever numbers they have, and none beside.
#[test]
fn the_pages_that_a_statement_touches_first_come_along() {
    let served = served(QueryLimits::default());
    for order in ["", "order by id desc"] {
        let sql = format!("select id, pad from t {order}");
        let ask = |most| {
            let request = PagesRequest {
                most_along: NonZeroU64::new(most),
                have: None,
                ..along(&sql)
            };
            served.ask(request).unwrap().1
        };
        let all = ask(0);
        assert!(all.len() > 900, "{}", all.len());
        assert_eq!(ask(u64::MAX), all);
        assert_eq!(ask(all.len() - 1), all);
        let (few, some) = (ask(1), ask(60));
        assert_eq!((few.len(), some.len()), (2, 61));
        let first = format!("select id, pad from t {order} limit 700");
        let touched = served.query(&first).unwrap();
        assert!(
            touched.len() < 60 && touched.is_subset(&some),
            "{touched:?} {some:?}"
        );
    }
    served.server.shutdown_blocking();
}

/// The same of SQLite, which looks at nothing but its own work: the only turn is free again.
#[test]
fn a_statement_without_an_end_whose_client_goes_away_gives_its_turn_back() {
    let served = served(QueryLimits {
        time: Duration::from_secs(60),
        at_once: 1,
        ..QueryLimits::default()
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for endless in [
        "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c, t",
        "select instr(group_concat(k), 'no') from t, (with recursive c(x) as (select 1 union all select x + 1 from c) select x from c)",
    ] {
        runtime.block_on(async {
            let mut answer = served.remote.pages(along(endless)).await.unwrap();
            while next(&mut answer).await != Some(0) {}
            // It has its turn when another page comes.
            next(&mut answer).await.unwrap();
        });
        served.query("select k from t where id = 12345").unwrap();
    }
    drop(runtime);
    served.server.shutdown_blocking();
}

/// What a client waits for does not depend on its statement, and one that is refused brings nothing else.
#[test]
fn a_statement_that_is_refused_or_finds_no_turn_leaves_the_pages_that_are_waited_for() {
    let served = served(QueryLimits {
        pages: 4,
        ..QueryLimits::default()
    });
    let only: RoaringBitmap = (0..1).collect();
    for sql in ["delete from t", "select no such thing", "select * from nowhere"] {
        assert_eq!(served.ask(along(sql)).unwrap().1, only, "{sql}");
    }
    let (_, some) = served.ask(along("select max(pad) from t")).unwrap();
    assert!((1..=5).contains(&some.len()), "{some:?}");
    served.server.shutdown_blocking();
    let busy = served_by(|server| {
        server.query_limits(QueryLimits {
            at_once: 1,
            ..QueryLimits::default()
        })
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endless = "with recursive c(x) as (select 1 union all select x + 1 from c) select count(*) from c, t";
    let held = runtime.block_on(async {
        let mut answer = busy.remote.pages(along(endless)).await.unwrap();
        next(&mut answer).await.unwrap();
        next(&mut answer).await.unwrap();
        answer
    });
    let (_, asked) = busy.ask(along("select k from t where id = 12345")).unwrap();
    assert_eq!(asked, only);
    drop(held);
    drop(runtime);
    busy.server.shutdown_blocking();
}
