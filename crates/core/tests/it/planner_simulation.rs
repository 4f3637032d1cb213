//! The planner held against the reads that SQLite makes, over the pages of real databases.
//!
//! A simulated replica starts with the first 32 pages. It descends from root to leaf as SQLite's cursors do, keeps
//! interior pages for the length of a statement as SQLite's page cache does, and fetches what the planner names when a
//! page is absent. Requests and pages are counted.

use std::collections::{BTreeSet, HashMap, HashSet};

use partial_sync_core::{
    FetchView, PageCount, PageNo, PageSize, Planner, PlannerConfig, SegmentSize,
    btree::{BTreePage, PageKind},
    segment_of,
};
use rusqlite::Connection;

struct Database {
    page_size: PageSize,
    bytes: Vec<u8>,
    roots: HashMap<String, PageNo>,
}

impl Database {
    fn new(sql: &str) -> Self {
        Self::with_page_size(PageSize::DEFAULT, sql)
    }

    fn with_page_size(page_size: PageSize, sql: &str) -> Self {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(&format!("PRAGMA page_size = {page_size}"))
            .unwrap();
        db.execute_batch(sql).unwrap();
        let mut statement = db
            .prepare("SELECT data FROM sqlite_dbpage ORDER BY pgno")
            .unwrap();
        let pages = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        let bytes = pages.flat_map(Result::unwrap).collect();
        let mut statement = db
            .prepare("SELECT name, rootpage FROM sqlite_schema WHERE rootpage")
            .unwrap();
        let roots = statement.query_map([], |row| Ok((row.get(0)?, PageNo::new(row.get(1)?).unwrap())));
        let roots = roots.unwrap().map(Result::unwrap).collect();
        Self {
            page_size,
            bytes,
            roots,
        }
    }

    fn size(&self) -> PageCount {
        PageCount((self.bytes.len() / self.page_size.as_usize()) as u32)
    }

    fn page(&self, page: PageNo) -> &[u8] {
        &self.bytes[page.offset(self.page_size) as usize..][..self.page_size.as_usize()]
    }

    fn parsed(&self, page: PageNo) -> BTreePage<'_> {
        BTreePage::parse(page, self.page(page), self.page_size.bytes()).unwrap()
    }

    fn children(&self, page: PageNo) -> Vec<PageNo> {
        self.parsed(page).children().map(Result::unwrap).collect()
    }

    /// How many levels a tree has.
    fn depth(&self, root: PageNo) -> usize {
        1 + self.children(root).first().map_or(0, |child| self.depth(*child))
    }

    fn tree(&self, root: PageNo) -> Vec<PageNo> {
        let mut pages = vec![root];
        for child in self.children(root) {
            pages.extend(self.tree(child));
        }
        pages
    }

    fn leaves(&self, root: PageNo) -> Vec<PageNo> {
        self.tree(root)
            .into_iter()
            .filter(|page| !self.parsed(*page).kind().is_interior())
            .collect()
    }

    /// Root, interior pages and leaf on the way to a rowid.
    fn way_to(&self, root: PageNo, rowid: i64) -> Vec<PageNo> {
        let mut way = vec![root];
        while self.parsed(way[way.len() - 1]).kind() == PageKind::InteriorTable {
            let page = self.parsed(way[way.len() - 1]);
            let cell = page
                .cells()
                .map(Result::unwrap)
                .find(|cell| rowid <= cell.rowid.unwrap());
            way.push(cell.map_or(page.right_most_child().unwrap(), |cell| cell.left_child.unwrap()));
        }
        way
    }
}

struct Replica<'a> {
    database: &'a Database,
    planner: Planner,
    present: HashSet<PageNo>,
    /// Interior pages in SQLite's cache.
    cached: HashSet<PageNo>,
    requests: Vec<Vec<PageNo>>,
}

struct View<'a>(&'a HashSet<PageNo>, PageCount);

impl FetchView for View<'_> {
    fn db_size(&self) -> PageCount {
        self.1
    }

    fn wants(&self, page: PageNo) -> bool {
        !self.0.contains(&page)
    }
}

impl<'a> Replica<'a> {
    fn new(database: &'a Database, prefetch: bool) -> Self {
        let segment = SegmentSize::new(4 * u64::from(database.page_size.bytes())).unwrap();
        let config = PlannerConfig {
            prefetch,
            ..PlannerConfig::new(database.page_size, segment)
        };
        let mut replica = Self {
            database,
            planner: Planner::new(config),
            present: HashSet::new(),
            cached: HashSet::new(),
            requests: vec![],
        };
        let prefix: Vec<PageNo> = PageCount(32).iter().collect();
        replica.arrive(&prefix);
        replica
    }

    fn arrive(&mut self, pages: &[PageNo]) {
        for page in pages {
            assert!(self.present.insert(*page), "{page:?} fetched twice");
            let bytes = self.database.page(*page);
            if Planner::is_interesting(*page, bytes) {
                self.planner.observe_page(*page, bytes);
            }
        }
    }

    fn read(&mut self, page: PageNo) {
        if self.cached.contains(&page) {
            return;
        }
        if !self.present.contains(&page) {
            let plan = self
                .planner
                .plan(page, &View(&self.present, self.database.size()));
            assert_eq!(plan.first(), Some(&page));
            self.arrive(&plan);
            self.requests.push(plan);
        }
        self.planner.observe_read(page);
        if self.database.parsed(page).kind().is_interior() {
            self.cached.insert(page);
        }
    }

    fn scan(&mut self, root: PageNo, descending: bool) {
        self.read(root);
        let mut children = self.database.children(root);
        if descending {
            children.reverse();
        }
        for child in children {
            self.scan(child, descending);
        }
    }

    fn look_up(&mut self, root: PageNo, rowid: i64) {
        for page in self.database.way_to(root, rowid) {
            self.read(page);
        }
    }

    fn fetched(&self) -> usize {
        self.requests.iter().map(Vec::len).sum()
    }

    /// How many pages of a tree were absent before anything was fetched.
    fn absent_of(&self, tree: &[PageNo]) -> usize {
        tree.iter().filter(|page| page.get() > 32).count()
    }
}

/// A table of 10,000 leaves that was filled in key order.
fn table_in_key_order() -> Database {
    Database::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
         INSERT INTO t SELECT i, zeroblob(980) FROM n;",
    )
}

/// Two tables that grow in turns, in random key order: pages of one tree lie scattered, interior pages among leaves.
fn tables_in_random_order() -> Database {
    let mut sql = String::from(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB); CREATE TABLE u(id INTEGER PRIMARY KEY, data BLOB); BEGIN;",
    );
    for n in 0..80 {
        for table in ["t", "u"] {
            sql += &format!(
                "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 499)
                 INSERT INTO {table} SELECT 1 + ({n} * 500 + i) * 7919 % 40000, zeroblob(980) FROM n;"
            );
        }
    }
    Database::new(&(sql + "COMMIT"))
}

#[test]
fn a_full_scan_of_10_000_leaves_takes_at_most_20_requests_and_fetches_next_to_nothing_else() {
    for (name, database) in [
        ("key order", table_in_key_order()),
        ("random order", tables_in_random_order()),
    ] {
        let root = database.roots["t"];
        let tree = database.tree(root);
        assert!(
            database.leaves(root).len() >= 9_000,
            "{} leaves",
            database.leaves(root).len()
        );
        for descending in [false, true] {
            let mut replica = Replica::new(&database, true);
            replica.scan(root, descending);
            let sizes: Vec<_> = replica.requests.iter().map(Vec::len).collect();
            println!(
                "{name}, descending {descending}: {} requests {sizes:?}",
                sizes.len()
            );
            assert!(sizes.len() <= 20, "{name}: {} requests: {sizes:?}", sizes.len());
            let limit = replica.absent_of(&tree) * 105 / 100;
            assert!(
                replica.fetched() <= limit,
                "{name}: {} pages fetched, {limit} allowed",
                replica.fetched()
            );
        }
    }
}

#[test]
fn a_full_scan_of_a_tree_of_four_levels_does_not_stop_at_interior_pages() {
    let database = Database::with_page_size(
        PageSize::new(512).unwrap(),
        "CREATE TABLE t(id INTEGER PRIMARY KEY, data BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 160000)
         INSERT INTO t SELECT i * 1000, zeroblob(200) FROM n;",
    );
    let root = database.roots["t"];
    let (tree, depth) = (database.tree(root), database.depth(root));
    for descending in [false, true] {
        let mut replica = Replica::new(&database, true);
        replica.scan(root, descending);
        let sizes: Vec<_> = replica.requests.iter().map(Vec::len).collect();
        println!(
            "{} pages in {depth} levels, descending {descending}: {} requests {sizes:?}",
            tree.len(),
            sizes.len()
        );
        assert!(sizes.len() <= 20, "{} requests", sizes.len());
        assert!(
            replica.fetched() <= replica.absent_of(&tree) * 105 / 100,
            "{} pages",
            replica.fetched()
        );
    }
}

#[test]
fn without_prefetch_every_absent_segment_takes_one_request() {
    let database = table_in_key_order();
    let root = database.roots["t"];
    let segment = SegmentSize::new(16 * 1024).unwrap();
    let segments: HashSet<_> = database
        .tree(root)
        .into_iter()
        .filter(|page| page.get() > 32)
        .map(|page| segment_of(page, PageSize::DEFAULT, segment, database.size()).unwrap())
        .collect();
    let mut replica = Replica::new(&database, false);
    replica.scan(root, false);
    assert_eq!(replica.requests.len(), segments.len());
    for request in &replica.requests {
        let segment = segment_of(request[0], PageSize::DEFAULT, segment, database.size()).unwrap();
        let mut pages: Vec<_> = segment.iter().filter(|page| *page != request[0]).collect();
        pages.insert(0, request[0]);
        assert_eq!(*request, pages);
    }
}

#[test]
fn a_point_lookup_takes_at_most_one_request_a_level_and_no_window() {
    for database in [table_in_key_order(), tables_in_random_order()] {
        let root = database.roots["t"];
        let depth = database.depth(root);
        let interior = database.tree(root).len() - database.leaves(root).len();
        for prefetch in [false, true] {
            for rowid in [1, 2, 4321, 20_000, 29_999] {
                let mut replica = Replica::new(&database, prefetch);
                replica.look_up(root, rowid);
                assert!(
                    replica.requests.len() < depth,
                    "{} requests, depth {depth}",
                    replica.requests.len()
                );
                assert!(
                    replica.fetched() <= 4 * depth + interior,
                    "{} pages",
                    replica.fetched()
                );
            }
        }
    }
}

#[test]
fn lookups_all_over_a_table_bring_segments_and_each_interior_page_once() {
    let database = tables_in_random_order();
    let root = database.roots["t"];
    let interior = database.tree(root).len() - database.leaves(root).len();
    let mut replica = Replica::new(&database, true);
    let mut random = 7_u64;
    for _ in 0..300 {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        replica.look_up(root, 1 + (random >> 33) as i64 % 30_000);
    }
    assert!(
        replica.requests.len() <= 302,
        "one request a lookup once interior pages are here"
    );
    assert!(
        replica.fetched() <= 300 * 4 + interior + 40,
        "{} pages",
        replica.fetched()
    );
}

#[test]
fn an_index_range_of_92_rows_wastes_no_more_than_its_windows() {
    let database = Database::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data BLOB);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
         INSERT INTO t SELECT i, printf('name %08d and some more text to be wide', i * 7919 % 30000), zeroblob(980) FROM n;
         CREATE INDEX t_name ON t(name);",
    );
    let index = database.roots["t_name"];
    let leaves = database.leaves(index);
    let rows_a_leaf = 30_000 / leaves.len();
    let touched = 92 / rows_a_leaf + 1;
    let mut replica = Replica::new(&database, true);
    replica.read(index);
    // The range begins in the middle of the index and ends two leaves on, as 92 entries do.
    let first = leaves.len() / 2;
    let parent_of = |leaf: PageNo| {
        let tree = database.tree(index);
        tree.into_iter().find(|page| {
            database.parsed(*page).kind().is_interior() && database.children(*page).contains(&leaf)
        })
    };
    for leaf in &leaves[first..=first + touched] {
        replica.read(parent_of(*leaf).unwrap());
        replica.read(*leaf);
    }
    println!("{touched} + 1 leaves: {:?}", replica.requests);
    assert!(
        replica.requests.len() <= database.depth(index) + 1,
        "{} requests",
        replica.requests.len()
    );
    // A segment on each level, the index's other interior pages, and one window of the least size.
    let interior = database.tree(index).len() - leaves.len();
    let limit = 4 * database.depth(index) + interior + 8;
    assert!(
        replica.fetched() <= limit,
        "{} pages, {limit} allowed",
        replica.fetched()
    );
    assert!(replica.requests.last().unwrap().len() <= 8);
}

#[test]
fn two_scans_in_turns_and_lookups_between_them_do_not_disturb_each_other() {
    let database = tables_in_random_order();
    let (t, u) = (
        database.leaves(database.roots["t"]),
        database.leaves(database.roots["u"]),
    );
    let mut replica = Replica::new(&database, true);
    for root in ["t", "u"].map(|name| database.roots[name]) {
        for page in database
            .tree(root)
            .into_iter()
            .filter(|page| database.parsed(*page).kind().is_interior())
        {
            replica.read(page);
        }
    }
    let before = replica.requests.len();
    let mut descending = u.iter().rev();
    for (n, leaf) in t.iter().enumerate() {
        replica.read(*leaf);
        if let Some(leaf) = descending.next() {
            replica.read(*leaf);
        }
        if n % 10 == 0 {
            replica.read(t[n * 7919 % t.len()]);
        }
    }
    descending.for_each(|leaf| replica.read(*leaf));
    let requests = replica.requests.len() - before;
    println!("{requests} requests for {} and {} leaves", t.len(), u.len());
    // Lookups come first to some leaves that the scans have not reached: one request each until then.
    assert!(requests <= 2 * 20 + t.len() / 10);
    assert_eq!(
        replica.fetched(),
        replica.requests.iter().flatten().collect::<BTreeSet<_>>().len()
    );
}

#[test]
fn a_planner_that_was_reset_knows_nothing() {
    let database = table_in_key_order();
    let root = database.roots["t"];
    let mut replica = Replica::new(&database, true);
    replica.scan(root, false);
    replica.planner.reset();
    let leaf = database.leaves(root)[5000];
    let everything_absent = HashSet::new();
    let plan = replica
        .planner
        .plan(leaf, &View(&everything_absent, database.size()));
    assert!(plan.len() <= 4, "{plan:?}");
}
