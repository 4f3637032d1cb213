//! A history from a seed. Each seed first chooses what its history is about (which tables, which troubles): histories that
//! do everything hide rare meetings behind frequent ones.

use fastrand::Rng;
use partial_sync_vfs::crash::Survives;

use crate::{
    steps::{Case, First, Line, Net, ReplicaSpec, Step, Trouble},
    workload::{self, kinds},
};

/// What to look at, when not everything.
#[derive(Clone, Debug, Default)]
pub struct Focus {
    /// Kinds of tables; empty = all.
    pub tables: Vec<String>,
    /// Kinds of tables and subjects to leave out; see [`Subjects`].
    pub without: Vec<String>,
    /// Subjects that every history has.
    pub with: Vec<String>,
}

/// What a history is about.
#[derive(Clone, Copy, Debug, Default)]
struct Subjects {
    line: bool,
    hold: bool,
    crash: bool,
    forks: bool,
    expire: bool,
    restart: bool,
    ddl: bool,
    version: bool,
    attach: bool,
    company: bool,
    beside: bool,
    transactions: bool,
    growth: bool,
    real: bool,
    pragmas: bool,
    http: bool,
    nothing: bool,
    discard: bool,
}

impl Subjects {
    fn choose(r: &mut Rng, focus: &Focus) -> Self {
        let mut on = |name: &str, of: u8| {
            let chosen = r.u8(..of) == 0;
            let said = |names: &[String]| names.iter().any(|other| other == name);
            (chosen || said(&focus.with)) && !said(&focus.without)
        };
        Self {
            line: on("line", 2),
            hold: on("hold", 5),
            crash: on("crash", 2),
            forks: on("forks", 2) | on("forks", 2),
            expire: on("expire", 3),
            restart: on("restart", 6),
            ddl: on("ddl", 4),
            version: on("version", 8),
            attach: on("attach", 12),
            company: on("company", 3),
            beside: on("beside", 8),
            transactions: on("transactions", 2),
            growth: on("growth", 2),
            real: on("real", 8),
            pragmas: on("pragmas", 4),
            http: on("http", 40),
            nothing: on("nothing", 10),
            discard: on("discard", 6),
        }
    }
}

/// Makes the history of a seed.
pub fn generate(seed: u64, focus: &Focus) -> Case {
    let mut r = Rng::with_seed(seed);
    let r = &mut r;
    let subjects = Subjects::choose(r, focus);
    let mut names: Vec<String> = match focus.tables.is_empty() {
        true => kinds().map(Into::into).collect(),
        false => focus.tables.clone(),
    };
    names.retain(|name| !focus.without.contains(name));
    r.shuffle(&mut names);
    names.truncate(r.usize(1..5));
    let page_size = [512, 1024, 1024, 4096][r.usize(..4)];
    let mut pragmas = vec![];
    let is_family = |name: &String| ["family", "chain", "kin"].contains(&name.as_str());
    if names.iter().any(is_family) || (subjects.pragmas && r.bool()) {
        pragmas.push("foreign_keys = on".to_owned());
    }
    if subjects.pragmas && r.u8(..3) == 0 {
        pragmas.push("recursive_triggers = on".to_owned());
    }
    let mut case = Case {
        seed,
        page_size,
        auto_vacuum: ["none", "none", "full", "incremental"][r.usize(..4)].into(),
        filler: [0, 10, 60, 200][r.usize(..4)],
        tables: names,
        pragmas,
        // What is held is waited for.
        timeout: if subjects.hold { 1500 } else { 10_000 },
        http: subjects.http,
        replicas: vec![],
        lines: vec![],
    };
    for _ in 0..[1, 1, 1, 2, 2, 3][r.usize(..6)] {
        let spec = replica(r, page_size, subjects);
        case.replicas.push(spec);
    }
    // A replica that begins without the remote cannot know another page size than the usual one.
    if case
        .replicas
        .iter()
        .any(|replica| replica.first == First::Nothing)
    {
        case.page_size = 4096;
    }
    // Nothing but real files can be shared, and only those can be attached.
    if subjects.attach && r.bool() {
        case.replicas
            .iter_mut()
            .for_each(|replica| replica.real_files = true);
    }
    let mut maker = Maker {
        r,
        subjects,
        tables: workload::tables_of(&case.tables),
        kinds: case.tables.clone(),
        replicas: case.replicas.len(),
    };
    for n in 0..case.replicas.len() {
        case.lines.push(Step::Open(n).into());
    }
    for _ in 0..maker.r.usize(10..50) {
        maker.lines(&mut case.lines);
    }
    case
}

fn replica(r: &mut Rng, page_size: u32, subjects: Subjects) -> ReplicaSpec {
    let page = u64::from(page_size);
    let first = match r.u8(..6) {
        0 | 1 => First::Whole,
        2 => First::Query("SELECT * FROM filler WHERE id < 10".into()),
        3 if subjects.nothing => First::Nothing,
        _ => First::Prefix(page * r.u64(1..12)),
    };
    ReplicaSpec {
        first,
        segment: page * [1, 1, 2, 8][r.usize(..4)],
        prefetch: [None, Some(true), Some(false)][r.usize(..3)],
        lists: r.bool(),
        real_files: subjects.real,
        threshold: [1000, 1000, 2, 5][r.usize(..4)],
    }
}

struct Maker<'a> {
    r: &'a mut Rng,
    subjects: Subjects,
    /// Every table, for reads.
    tables: Vec<String>,
    kinds: Vec<String>,
    replicas: usize,
}

impl Maker<'_> {
    /// Adds a step, with what belongs to it.
    fn lines(&mut self, lines: &mut Vec<Line>) {
        let n = self.r.usize(..self.replicas);
        let step = self.step(n);
        if !matches!(step, Step::Remote(_) | Step::Read(..) | Step::Net(..)) {
            self.troubles(n, lines);
        }
        // What a long reader may have to read from the file and not from the WAL.
        if matches!(step, Step::Begin(..)) && self.r.u8(..3) == 0 {
            lines.push(Step::Checkpoint(n).into());
        }
        let mut line = Line::from(step);
        if matches!(line.step, Step::Pull(..) | Step::Push(_) | Step::Hydrate(_)) {
            self.company(n, &mut line);
        }
        let began_at = match line.step {
            Step::Begin(n, c, immediate) => Some((n, c, immediate)),
            _ => None,
        };
        lines.push(line);
        if let Some((n, c, immediate)) = began_at {
            self.transaction(n, c, immediate, lines);
        }
    }

    /// What goes wrong with the next step.
    fn troubles(&mut self, n: usize, lines: &mut Vec<Line>) {
        if self.subjects.forks {
            for _ in 0..self.r.usize(..4) {
                let step = Step::Fork(n, self.operation(), self.survives());
                lines.push(step.into());
            }
        }
        if self.subjects.crash && self.r.u8(..12) == 0 {
            let step = Step::Crash(n, self.operation(), self.survives());
            lines.push(step.into());
        }
        if self.subjects.line && self.r.u8(..4) == 0 {
            let net = match self.r.u8(..8) {
                0 => Net::Offline,
                1 => Net::OfflineFrom(self.r.usize(1..5)),
                2 | 3 => Net::Well,
                4 => Net::Release,
                _ => Net::Trouble(self.r.usize(1..4), self.trouble()),
            };
            lines.push(Step::Net(n, net).into());
        }
        if self.subjects.hold && self.r.u8(..5) == 0 {
            let net = match self.r.u8(..4) {
                0 => Net::Release,
                _ => Net::Trouble(self.r.usize(1..4), Trouble::HoldEnd),
            };
            lines.push(Step::Net(n, net).into());
        }
    }

    /// File operations are few in most steps.
    fn operation(&mut self) -> u64 {
        match self.r.u8(..3) {
            0 => self.r.u64(1..5),
            1 => self.r.u64(1..20),
            _ => self.r.u64(1..80),
        }
    }

    fn survives(&mut self) -> Survives {
        match self.r.u8(..3) {
            0 => Survives::Written,
            1 => Survives::Synced,
            _ => Survives::SyncedAndSome(self.r.u64(..1000)),
        }
    }

    fn trouble(&mut self) -> Trouble {
        match self.r.u8(..7) {
            0 => Trouble::Fail,
            1 => Trouble::Refuse,
            2 => Trouble::Lose,
            3 => Trouble::Twice,
            4 => Trouble::Late,
            _ => Trouble::Cut(self.r.usize(..20_000)),
        }
    }

    fn company(&mut self, n: usize, line: &mut Line) {
        if self.subjects.company && self.r.bool() {
            for _ in 0..self.r.usize(1..4) {
                let step = match self.r.u8(..12) {
                    0 => Step::Stats(n),
                    1 => Step::Checkpoint(n),
                    2 => Step::Cancel(n),
                    3 if self.subjects.expire => Step::Expire,
                    4 | 5 => self.remote(),
                    6 | 7 => Step::Sql(n, 3, self.statement(n)),
                    8 if self.subjects.line => Step::Net(n, Net::Offline),
                    _ => Step::Read(n, self.r.usize(..4), self.table()),
                };
                // What takes turns with a pull would wait for it, and a read that needs a page which a hydration has asked
                // for waits for the hydration.
                let takes_turns =
                    matches!(step, Step::Checkpoint(_)) && !matches!(line.step, Step::Pull(_, true));
                let shares =
                    matches!(step, Step::Read(..) | Step::Sql(..)) && matches!(line.step, Step::Hydrate(_));
                if !takes_turns && !shares {
                    line.meanwhile.push((self.r.usize(1..4), step));
                }
            }
        }
        // What runs freely may wait for a request that is kept waiting: one or the other.
        if line.meanwhile.is_empty() && self.subjects.beside && self.r.bool() {
            for _ in 0..self.r.usize(1..4) {
                let table = self.table();
                line.beside.push(match self.r.u8(..3) {
                    0 => Step::Read(n, 9, table),
                    _ => Step::Stats(n),
                });
            }
        }
    }

    fn table(&mut self) -> String {
        self.tables[self.r.usize(..self.tables.len())].clone()
    }

    fn statement(&mut self, n: usize) -> String {
        let client = n as u64 + 1;
        match self.r.u8(..12) {
            0 | 1 if self.subjects.ddl => workload::schema_change(self.r, client),
            2 if self.subjects.version => format!("PRAGMA user_version = {}", self.r.u8(1..200)),
            _ => workload::statement(self.r, client, &self.kinds),
        }
    }

    fn remote(&mut self) -> Step {
        Step::Remote(match self.r.u8(..10) {
            0..4 if self.subjects.growth => workload::filler(self.r),
            4 => "UPDATE filler SET v = v || 'y' WHERE id = 1".into(),
            5 if self.subjects.ddl => workload::schema_change(self.r, 0),
            _ => workload::statement(self.r, 0, &self.kinds),
        })
    }

    fn step(&mut self, n: usize) -> Step {
        let c = self.r.usize(..3);
        match self.r.u8(..40) {
            0..12 => Step::Sql(n, c, self.statement(n)),
            12..17 => Step::Read(n, c, self.table()),
            17..22 => self.remote(),
            22..27 => Step::Pull(n, self.r.u8(..8) == 0),
            27..30 => Step::Push(n),
            30 | 31 => Step::Checkpoint(n),
            32 => Step::Stats(n),
            33 if self.r.bool() => Step::Hydrate(n),
            34 if self.r.bool() => Step::Close(n),
            35 => Step::Open(n),
            36 if self.subjects.expire => Step::Expire,
            37 if self.subjects.restart => Step::Restart(self.r.bool()),
            39 if self.subjects.discard => Step::Discard(n, self.r.usize(..3), self.r.bool()),
            38 if self.subjects.attach => {
                let other = self.r.usize(..self.replicas);
                let sql = workload::statement(self.r, other as u64 + 1, &self.kinds);
                Step::Attach(
                    n,
                    c,
                    other,
                    sql.replacen("INTO ", "INTO other.", 1)
                        .replacen("UPDATE ", "UPDATE other.", 1)
                        .replacen("FROM ", "FROM other.", 1),
                )
            }
            _ if self.subjects.transactions => Step::Begin(n, c, self.r.u8(..3) == 0),
            _ => Step::Sql(n, c, self.statement(n)),
        }
    }

    /// The rest of a transaction; other steps may come in between.
    fn transaction(&mut self, n: usize, c: usize, writes: bool, lines: &mut Vec<Line>) {
        if writes {
            for _ in 0..self.r.usize(1..6) {
                let sql = match self.r.u8(..6) {
                    0 => "SAVEPOINT a".to_owned(),
                    1 => "ROLLBACK TO a".to_owned(),
                    2 => "RELEASE a".to_owned(),
                    _ => self.statement(n),
                };
                lines.push(Step::Sql(n, c, sql).into());
            }
        } else {
            let table = self.table();
            lines.push(Step::Read(n, c, table).into());
            for _ in 0..self.r.usize(..6) {
                self.between(n, c, lines);
            }
            let table = self.table();
            lines.push(Step::Read(n, c, table).into());
        }
        lines.push(
            if self.r.u8(..4) == 0 {
                Step::Rollback(n, c)
            } else {
                Step::Commit(n, c)
            }
            .into(),
        );
    }

    fn between(&mut self, n: usize, c: usize, lines: &mut Vec<Line>) {
        let other = (c + 1) % 3;
        let step = match self.r.u8(..9) {
            0 | 1 => self.remote(),
            2 | 3 => Step::Pull(n, false),
            4 => Step::Sql(n, other, self.statement(n)),
            5 => Step::Checkpoint(n),
            6 => Step::Push(n),
            7 if self.r.bool() => Step::Hydrate(n),
            _ => Step::Read(n, c, self.table()),
        };
        if !matches!(step, Step::Read(..)) {
            self.troubles(n, lines);
        }
        lines.push(step.into());
    }
}
