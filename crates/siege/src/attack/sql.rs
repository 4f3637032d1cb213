//! Statements and bodies that take too much: of time, of memory, of temporary files.

use bytes::Bytes;
use fastrand::Rng;
use serde_json::json;

use super::foe::{Foe, any, reader};
use crate::{
    ask::{self, FOE},
    client::Ask,
};

const SQL: &str = "/honest/v2/pipeline";
const PAGES: &str = "/honest/pull-updates";

/// As SQL or as a selector.
fn either(rng: &mut Rng, sql: &str) -> Ask {
    let token = reader(rng);
    match rng.bool() {
        true => Ask::post(token, SQL, ask::statement(sql)),
        false => Ask::post(token, PAGES, ask::pages(&ask::selector(sql.to_owned()))),
    }
}

/// Row 1.
pub(super) async fn opcodes(foe: Foe) {
    let ask = |rng: &mut Rng| {
        let n = rng.u32(1_000_000..16_000_000);
        let sql = match rng.u8(..9) {
            0 => format!("SELECT instr(hex(zeroblob({n})), replace(hex(zeroblob({n} / 2)), '00', '01'))"),
            1 => format!("SELECT length(replace(hex(zeroblob({n})), '0', 'abcdefgh'))"),
            2 => format!("SELECT hex(zeroblob({n})) LIKE '%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%0%1'"),
            3 => format!("SELECT trim(hex(zeroblob({n})), hex(randomblob(60000)))"),
            4 => "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
                .to_owned(),
            5 => "SELECT count(*) FROM t a, t b, t c WHERE a.v < b.v AND b.v < c.v".to_owned(),
            6 => format!("SELECT count(*) FROM t WHERE v GLOB '*{}*'", "a*".repeat(100)),
            7 => format!("SELECT printf('%.*c', {n}, 'x') LIKE '%{}'", "x%".repeat(60)),
            _ => format!("SELECT json_valid(printf('%.*c', {n}, '[')), unhex(hex(zeroblob({n})), ' ')"),
        };
        either(rng, &sql)
    };
    foe.clients(48, ask, any).await;
}

/// Row 2.
pub(super) async fn bombs(foe: Foe) {
    let steps = r#"{"requests":[{"type":"batch","batch":{"steps":["#;
    let kinds = [
        (steps, r#"{"stmt":{}}"#, "]}}]}"),
        (steps, r#"{"stmt":{"sql":"SELECT 1"}}"#, "]}}]}"),
        (r#"{"requests":["#, r#"{"type":"close"}"#, "]}"),
        (
            r#"{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1","args":["#,
            r#"{"type":"null"}"#,
            "]}}]}",
        ),
        (r#"{"requests":["#, "[[[[[[[[", ""),
    ];
    let bomb = |size: usize, (start, part, end): (&str, &str, &str)| {
        let parts = vec![part; size / (part.len() + 1)];
        Bytes::from(format!("{start}{}{end}", parts.join(",")))
    };
    let small: Vec<_> = kinds.iter().map(|kind| bomb(1_000_000, *kind)).collect();
    let large: Vec<_> = kinds[..3].iter().map(|kind| bomb(60_000_000, *kind)).collect();
    let ask = move |rng: &mut Rng| match rng.u8(..8) {
        0 => Ask::post(FOE, SQL, large[rng.usize(..large.len())].clone()),
        _ => Ask::post(reader(rng), SQL, small[rng.usize(..small.len())].clone()),
    };
    foe.clients(24, ask, any).await;
}

/// Row 3.
pub(super) async fn values(foe: Foe) {
    let ask = |rng: &mut Rng| {
        let n = rng.u32(1_000_000..1_000_000_000);
        let small = n % 16_000_000;
        let sql = match rng.u8(..7) {
            0 => format!("SELECT hex(zeroblob({n}))"),
            1 => format!("SELECT length(hex(randomblob({small})))"),
            2 => "SELECT group_concat(hex(v)) FROM t".to_owned(),
            3 => "SELECT hex(a.v) FROM t a, t b".to_owned(),
            4 => format!("SELECT json_group_array(hex(randomblob({small}))) FROM t"),
            5 => format!("SELECT randomblob({small}), randomblob({small}), zeroblob({small})"),
            _ => format!(
                "WITH RECURSIVE n(x) AS (SELECT zeroblob({small}) UNION ALL SELECT x || x FROM n) SELECT max(x) FROM n"
            ),
        };
        either(rng, &sql)
    };
    foe.clients(48, ask, any).await;
}

/// Row 5.
pub(super) async fn sorters(foe: Foe) {
    let ask = |rng: &mut Rng| {
        let sql = match rng.u8(..5) {
            0 => "SELECT a.v FROM t a, t b ORDER BY a.v || b.id LIMIT 1",
            1 => "SELECT count(*) FROM (SELECT DISTINCT a.v || b.id FROM t a, t b)",
            2 => "SELECT a.v || b.id AS x, count(*) FROM t a, t b GROUP BY x LIMIT 1",
            3 => {
                "WITH RECURSIVE n(i, v) AS (VALUES (1, randomblob(9000)) UNION SELECT i + 1, randomblob(9000) FROM n) \
                 SELECT count(*) FROM n"
            }
            _ => "SELECT count(*) FROM (SELECT v || 1 FROM t UNION SELECT randomblob(3000) FROM t a, t b)",
        };
        either(rng, sql)
    };
    foe.clients(48, ask, any).await;
}

/// The body of a row that is pushed to another table than the honest client's.
pub(super) fn row(bytes: u32) -> Ask {
    let args = json!([{ "type": "integer", "value": bytes.to_string() }]);
    let body = ask::push(
        "INSERT OR REPLACE INTO foe VALUES (abs(random()) % 2000, randomblob(?1))",
        &args,
    );
    Ask::post(FOE, SQL, body)
}
