//! What is known of virtual tables: where the rows that a statement writes into one can be seen.
//!
//! SQLite tells of no row of a virtual table, but of those of the ordinary tables in which FTS5 and R*Tree keep what they
//! have (their "shadow tables"). Formats: <https://sqlite.org/fts5.html#fts5_data_structures>,
//! <https://sqlite.org/rtree.html#theory_of_operation>.

use std::{collections::HashMap, sync::Arc};

use partial_sync_vfs::sqlite::{self, Conn, Step, ValueRef};

use super::units::Units;
use crate::change::{
    Column, RowOp, Table, Value,
    sql::quoted,
    tokens::{Token, tokens},
};

/// A virtual table.
#[derive(Debug)]
pub(crate) struct VirtualTable {
    pub name: String,
    pub kind: Kind,
}

/// Where its rows are.
#[derive(Debug)]
pub(crate) enum Kind {
    /// FTS3 to FTS5: whole in its `_content` table, column for column.
    Content(Arc<Table>),
    /// FTS5 over another table: only which rows are indexed, in its `_docsize` table.
    External {
        content: String,
        rowid: String,
        columns: Vec<String>,
    },
    /// R*Tree: `_rowid` tells the node of a row, `_node` has its coordinates.
    Spatial(Arc<Table>, Coordinates),
    /// FTS5 that keeps no content, FTS4 that keeps it in another way.
    Contentless,
    /// Nothing is known of it.
    Other,
}

/// How an R*Tree keeps coordinates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Coordinates {
    pub count: usize,
    pub integers: bool,
}

/// A part of a virtual table, as its shadow table's name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Content,
    DocSize,
    RowId,
    Node,
    Rest,
}

/// The virtual table that a shadow table may belong to, and what it holds.
pub(crate) fn owner(shadow: &str) -> impl Iterator<Item = (&str, Part)> {
    shadow.match_indices('_').map(move |(at, _)| {
        let part = match shadow[at + 1..].to_ascii_lowercase().as_str() {
            "content" => Part::Content,
            "docsize" => Part::DocSize,
            "rowid" => Part::RowId,
            "node" => Part::Node,
            _ => Part::Rest,
        };
        (&shadow[..at], part)
    })
}

/// Reads what the virtual table `name` is.
pub(crate) fn read(conn: &Conn, name: &str) -> sqlite::Result<VirtualTable> {
    let mut select = conn
        .prepare_one("SELECT sql FROM main.sqlite_schema WHERE type = 'table' AND lower(name) = lower(?1)")?;
    select.bind(1, ValueRef::Text(name.as_bytes()))?;
    let sql = match (select.step()?, select.value(0)) {
        (Step::Row, Ok(ValueRef::Text(sql))) => String::from_utf8_lossy(sql).into_owned(),
        _ => String::new(),
    };
    let mut select =
        conn.prepare_one("SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 ORDER BY cid")?;
    select.bind(1, ValueRef::Text(name.as_bytes()))?;
    let mut columns = Vec::new();
    while select.step()? == Step::Row {
        if let ValueRef::Text(column) = select.value(0)? {
            columns.push(String::from_utf8_lossy(column).into_owned());
        }
    }
    Ok(VirtualTable {
        name: name.to_owned(),
        kind: kind(name, &tokens(&sql), columns),
    })
}

fn kind(name: &str, tokens: &[Token<'_>], columns: Vec<String>) -> Kind {
    let Some(using) = tokens.iter().position(|t| t.is("USING")) else {
        return Kind::Other;
    };
    let module = tokens.get(using + 1).and_then(Token::name).unwrap_or_default();
    let arguments = arguments(&tokens[using + 2..]);
    let option = |wanted: &str| {
        arguments.iter().find_map(|argument| match argument[..] {
            [option, equals, ..] if equals.text == "=" && option.is(wanted) => Some(
                argument
                    .get(2)
                    .map(|t| t.name().unwrap_or_else(|| t.text.to_owned()))
                    .unwrap_or_default(),
            ),
            _ => None,
        })
    };
    let table = |key: &str, columns: &[String]| {
        let keyed = std::iter::once((key.to_owned(), 1));
        let others = columns.iter().map(|column| (column.clone(), 0));
        let column = |(name, key)| Column {
            name,
            key,
            generated: false,
        };
        Arc::new(Table {
            name: name.to_owned(),
            columns: keyed.chain(others).map(column).collect(),
            without_rowid: false,
            is_virtual: true,
        })
    };
    match module.to_ascii_lowercase().as_str() {
        "fts5" => match option("content") {
            None => Kind::Content(table("rowid", &columns)),
            Some(content) if content.is_empty() => Kind::Contentless,
            Some(_) if option("columnsize").is_some_and(|size| size == "0") => Kind::Contentless,
            Some(content) => Kind::External {
                content,
                rowid: option("content_rowid").unwrap_or_else(|| "rowid".into()),
                columns,
            },
        },
        "fts3" | "fts4" => match ["content", "compress", "languageid"]
            .iter()
            .any(|o| option(o).is_some())
        {
            true => Kind::Contentless,
            false => Kind::Content(table("rowid", &columns)),
        },
        "rtree" | "rtree_i32" if !columns.is_empty() => {
            let auxiliary = arguments
                .iter()
                .filter(|a| a.first().is_some_and(|t| t.text == "+"))
                .count();
            let coordinates = Coordinates {
                count: columns.len().saturating_sub(1 + auxiliary),
                integers: module.eq_ignore_ascii_case("rtree_i32"),
            };
            Kind::Spatial(table(&columns[0], &columns[1..]), coordinates)
        }
        _ => Kind::Other,
    }
}

/// The arguments of a module, each as its tokens.
fn arguments<'t>(tokens: &[Token<'t>]) -> Vec<Vec<Token<'t>>> {
    let (mut all, mut depth) = (vec![Vec::new()], 0usize);
    for token in tokens {
        match token.text {
            "(" => {
                depth += 1;
                if depth == 1 {
                    continue;
                }
            }
            ")" => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
            }
            "," if depth == 1 => {
                all.push(Vec::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = all.last_mut() {
            last.push(*token);
        }
    }
    all
}

/// The SQL that takes row `?` out of an index with external content, and that which puts it in, as the content is. Neither
/// does anything twice, or for a row that is not there: then the index fits the content whatever happened between the two.
pub(crate) fn reindex(table: &str, content: &str, rowid: &str, columns: &[String]) -> (String, String) {
    let (name, content) = (quoted(table), quoted(content));
    let rowid = if rowid.eq_ignore_ascii_case("rowid") {
        "rowid".to_owned()
    } else {
        quoted(rowid)
    };
    let list: String = columns
        .iter()
        .map(|column| format!(", {}", quoted(column)))
        .collect();
    let docsize = quoted(&format!("{table}_docsize"));
    (
        format!(
            "INSERT INTO {name}({name}, rowid{list}) SELECT 'delete', {rowid}{list} FROM {content} \
             WHERE {rowid} = ? AND EXISTS (SELECT 1 FROM {docsize} WHERE {docsize}.id = {content}.{rowid})"
        ),
        format!(
            "INSERT INTO {name}(rowid{list}) SELECT {rowid}{list} FROM {content} \
             WHERE {rowid} = ? AND NOT EXISTS (SELECT 1 FROM {docsize} WHERE {docsize}.id = {content}.{rowid})"
        ),
    )
}

/// What was seen of an R*Tree while a statement ran: how its rows and nodes were before.
#[derive(Default)]
pub(crate) struct Spatial {
    /// In the order in which they were first touched, each with the units that did.
    pub touched: Vec<(i64, Vec<usize>)>,
    /// Where in `touched` a row is, and its row of `_rowid` before.
    rows: HashMap<i64, (usize, Option<Vec<Value>>)>,
    nodes: HashMap<i64, Option<Vec<u8>>>,
}

impl Spatial {
    /// A change of one of its two tables.
    pub(crate) fn see(&mut self, part: Part, op: RowOp, direct: bool, units: &mut Units) {
        let (before, after) = match op {
            RowOp::Insert { after } | RowOp::Add { after } => (None, Some(after)),
            RowOp::Update { before, after } => (Some(before), Some(after)),
            RowOp::Delete { before } => (Some(before), None),
        };
        let id = |image: &Vec<Value>| match image.first() {
            Some(Value::Integer(id)) => Some(*id),
            _ => None,
        };
        let Some(id) = before.as_ref().or(after.as_ref()).and_then(id) else {
            return;
        };
        if part == Part::RowId {
            match self.rows.get(&id) {
                None => {
                    let unit = units.inner(direct);
                    self.rows.insert(id, (self.touched.len(), before));
                    self.touched.push((id, vec![unit]));
                }
                Some(&(at, _)) if !direct => self.touched[at].1.push(units.inner(false)),
                Some(_) => {}
            }
        } else {
            self.nodes
                .entry(id)
                .or_insert_with(|| match before.and_then(|mut row| row.pop()) {
                    Some(Value::Blob(node)) => Some(node),
                    _ => None,
                });
        }
    }

    /// The row as it was before the statement; `None` when there was none, or it cannot be told.
    pub(crate) fn before(
        &self,
        conn: &Conn,
        table: &Table,
        coordinates: Coordinates,
        id: i64,
    ) -> Option<Vec<Value>> {
        let row = self.rows.get(&id)?.1.as_ref()?;
        let Some(Value::Integer(node)) = row.get(1) else {
            return None;
        };
        let bytes = match self.nodes.get(node) {
            Some(bytes) => bytes.clone()?,
            None => unchanged_node(conn, &table.name, *node)?,
        };
        let mut image = vec![Value::Integer(id)];
        image.extend(cell(&bytes, coordinates, id)?);
        image.extend(row.iter().skip(2).cloned());
        (image.len() == table.columns.len()).then_some(image)
    }
}

fn unchanged_node(conn: &Conn, table: &str, node: i64) -> Option<Vec<u8>> {
    let sql = format!(
        "SELECT data FROM main.{} WHERE nodeno = ?1",
        quoted(&format!("{table}_node"))
    );
    let mut select = conn.prepare_one(&sql).ok()?;
    select.bind(1, ValueRef::Integer(node)).ok()?;
    match (select.step().ok()?, select.value(0)) {
        (Step::Row, Ok(ValueRef::Blob(bytes))) => Some(bytes.to_vec()),
        _ => None,
    }
}

/// The coordinates of a row in a leaf: after 2 bytes of depth and 2 of count, each cell is a 64-bit id and 32 bits per
/// coordinate, big-endian.
fn cell(node: &[u8], coordinates: Coordinates, id: i64) -> Option<Vec<Value>> {
    let count = usize::from(u16::from_be_bytes(node.get(2..4)?.try_into().ok()?));
    let cell = node
        .get(4..)?
        .chunks_exact(8 + 4 * coordinates.count)
        .take(count)
        .find(|cell| cell[..8] == id.to_be_bytes())?;
    let values = cell[8..].chunks_exact(4).map(|bytes| {
        let bits = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        match coordinates.integers {
            true => Value::Integer(i64::from(bits as i32)),
            false => Value::Real(f64::from(f32::from_bits(bits))),
        }
    });
    Some(values.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Kind {
        kind("f", &tokens(sql), vec!["a".into(), "b".into()])
    }

    #[test]
    fn the_content_of_a_full_text_table_is_its_own_another_tables_or_none() {
        assert!(matches!(
            of("create virtual table f using fts5(a, b, tokenize = 'porter ascii')"),
            Kind::Content(_)
        ));
        assert!(matches!(
            of("CREATE VIRTUAL TABLE f USING fts5(a, b, content='')"),
            Kind::Contentless
        ));
        assert!(matches!(
            of("create virtual table f using custom(a)"),
            Kind::Other
        ));
        let Kind::External { content, rowid, .. } =
            of("create virtual table main.f using \"fts5\"(a, b, content=[my doc], content_rowid='id')")
        else {
            panic!("external")
        };
        assert_eq!((content.as_str(), rowid.as_str()), ("my doc", "id"));
        let Kind::Spatial(_, coordinates) = of("create virtual table f using rtree_i32(id, x0, x1, +n)")
        else {
            panic!("spatial")
        };
        assert!(coordinates.integers);
    }
}
