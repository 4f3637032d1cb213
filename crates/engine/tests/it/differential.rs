//! The answer to every query on a partial replica is what the `sqlite3` shell, a program that we did not write, answers on
//! the whole file: for page sizes from 512 to 65536, whatever pages happen to be here, with prefetch and without.

use std::{
    collections::BTreeSet,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use crate::support::*;
use partial_sync::{Connection, Database, PartialSync};
use rusqlite::types::ValueRef;

const SCHEMA: &str = "
create table words(id integer primary key, w text);
insert into words(w) values ('river'),('mountain'),('lake'),('forest'),('desert'),('island'),('valley'),('harbour'),('bridge'),
  ('castle'),('market'),('garden'),('tower'),('station'),('museum'),('running'),('runs'),('stone'),('silver'),('über');
create table person(id integer primary key, name text unique, city text collate nocase, born integer, score real, note text);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 900)
insert into person select x, printf('person %04d', (x * 7919) % 10007), case x % 6 when 0 then 'Berlin' when 1 then 'berlin'
  when 2 then 'Paris' when 3 then 'ROME' when 4 then 'Oslo' end, 1940 + (x * 37) % 70, ((x * 7919) % 1000) / 8.0,
  case x % 5 when 0 then null else substr('lorem ipsum dolor sit amet consectetur', x % 20, x % 17) end from c;
create index person_city on person(city, born);
create index person_score on person(score) where score > 60;
create index person_lower on person(lower(note));
create table orders(id integer primary key, person integer references person, item text, qty integer, price real, placed text, status text);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 1500)
insert into orders select x, 1 + (x * 31) % 1000, (select w from words where id = 1 + x % 20), x % 9, (x * 13 % 977) / 4.0,
  date('2020-01-01', (x * 17 % 900) || ' days'), case x % 4 when 0 then 'open' when 1 then 'paid' when 2 then 'sent' end from c;
create index orders_person on orders(person, qty);
create index orders_placed on orders(placed desc, id);
create table tag(person integer, tag text, weight, primary key(tag, person)) without rowid;
insert into tag select id, (select w from words where words.id = 1 + (person.id * 3) % 20), id % 11 from person where id % 4 <> 0;
insert or ignore into tag select id, 'common', case id % 3 when 0 then 'text' when 1 then 1.5 end from person where id % 3 = 0;
create table blobs(id integer primary key, kind text, data blob, tail integer);
insert into blobs select id, w, cast(replace(hex(zeroblob(id * id * 4)), '00', w || id) as blob), id from words;
insert into blobs values (100, 'huge', zeroblob(150000), 7), (101, 'none', null, 8), (102, 'empty', x'', 9);
create table texts(id integer primary key, body text, tail text);
insert into texts select id, replace(hex(zeroblob(id * 150)), '00', w || ' ''q''
'), 'tail ' || id from words;
create table tree(id integer primary key, parent integer, label text);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 300) insert into tree select x, nullif(x / 3, 0), 'n' || x from c;
create index tree_parent on tree(parent);
create table mixed(a, b);
insert into mixed values (1, 1), (1.0, 'one'), ('1', x'31'), (x'31', null), (null, null), (null, 2), ('', ''), ('abc', 'ABC'), ('ABC', 'abc'), (-1, 1e100),
  (9223372036854775807, -9223372036854775808), (0.1, -0.5), ('10', 10), ('9', 9), (2, 'b'), ('b', 2), (' 5 ', 5);
create index mixed_ab on mixed(a, b desc);
create table collated(r text collate rtrim, n text collate nocase, b text);
insert into collated values ('x', 'Abc', 'Abc'), ('x  ', 'aBC', 'abc'), ('y ', 'abd', 'ABD'), ('x y', 'ABD', null), (null, null, 'z');
create index collated_n on collated(n);
create table gen(id integer primary key, a integer, b integer generated always as (a * 2) stored, c text as ('c' || a) virtual);
insert into gen(id, a) select id, id * 7 % 13 from words;
create index gen_c on gen(c);
create table js(id integer primary key, j text);
insert into js select id, json_object('name', w, 'n', id, 'list', json_array(id, id * 2, null, w), 'deep', json_object('x', id % 3)) from words;
create table strong(k any primary key, v integer) strict, without rowid;
insert into strong values (1, 1), ('1', 2), (x'31', 3), (1.5, 4);
create table empty(x, y);
create virtual table doc using fts5(title, body, tokenize = 'porter unicode61');
insert into doc(rowid, title, body) select p.id, (select w from words where id = 1 + p.id % 20),
  (select group_concat(w, ' ') from (select w from words where (words.id * p.id) % 7 < 3 order by words.id)) from person p where p.id <= 250;
create virtual table place using rtree(id, x0, x1, y0, y1);
insert into place select id, id % 100, id % 100 + 3, id * 7 % 90, id * 7 % 90 + 2 from person;
create view spender as select p.id, p.name, p.city, sum(o.qty * o.price) as spent, count(*) as n from person p join orders o on o.person = p.id group by p.id;
create view open_order as select * from orders where status = 'open';
";

/// `$n` is a person's id, `$s` a small number, `$w` a word, `$y` a year, `$d` a date; each is chosen again for each run.
const QUERIES: &[&str] = &[
    "select * from person where id = $n",
    "select name, score from person where id between $n and $n + 40 order by id desc",
    "select count(*), min(id), max(id), sum(score), avg(score), total(born) from person",
    "select id, name from person where name = printf('person %04d', ($n * 7919) % 10007)",
    "select id from person where city = 'BERLIN' and born > $y order by id",
    "select city, count(*) from person group by city order by city",
    "select city, born, count(*) from person group by city, born having count(*) > 2 order by 1, 2",
    "select distinct city collate binary from person order by 1",
    "select city, born from person indexed by person_city where city = 'oslo' order by born desc, rowid desc limit 20",
    "select count(*) from person where city in ('paris', 'Rome')",
    "select count(*) from person indexed by person_city where born >= 0 and city > ''",
    "select id from person where score > 60 and score < 60 + $s order by score, id",
    "select id, note from person where lower(note) = 'lorem' order by id",
    "select count(*) from person where note is null",
    "select count(note), count(*), count(distinct note) from person",
    "select id from person where note like 'dolor%' order by id",
    "select id from person where name like '%$s%' and id < 300 order by id desc",
    "select id from person where name glob 'person 0[0-3]*' order by name limit 15",
    "select id from person where id = $n or name = 'person 0042' or score = $s order by id",
    "select id from person where id in ($n, $n + 1, 7, 7, null) order by id",
    "select id from person where id not in (select person from orders) order by id",
    "select id from person where (city, born) = ('Paris', $y)",
    "select id from person where (city, born) in (select city, born from person where id = $n) order by id",
    "select max(id) from person where id < $n",
    "select id from person order by id desc limit 10 offset $s",
    "select id, born from person order by born desc, id limit 12",
    "select id from person where rowid > $n order by rowid limit 5",
    "select substr(name, 8) as x, length(note) from person where id % 97 = $s order by x",
    "select upper(note), replace(note, 'o', '0'), trim(note, 'l'), instr(note, 'm') from person where id between $n and $n + 5 order by id",
    "select quote(note), typeof(score), hex(name) from person where id = $n",
    "select p.name, o.id, o.item from person p join orders o on o.person = p.id where p.id = $n order by o.id",
    "select p.id, count(o.id) from person p left join orders o on o.person = p.id and o.qty > 5 where p.id between $n and $n + 30 group by p.id order by p.id",
    "select o.id from orders o left join person p on p.id = o.person where p.id is null order by o.id limit 30",
    "select p.id, o.id from person p right join orders o on p.id = o.person where o.id between $n and $n + 20 order by o.id",
    "select p.id, t.tag from person p full join tag t on t.person = p.id and t.tag = '$w' where p.id < 30 or p.id is null order by 1, 2",
    "select a.id, b.id from person a join person b on b.born = a.born and b.id > a.id where a.id = $n order by b.id",
    "select count(*) from person a, words w where w.id = a.id % 20",
    "select w.w, sum(o.qty) from words w join orders o on o.item = w.w group by w.w order by 2 desc, 1",
    "select p.id, o.item, t.tag from person p join orders o on o.person = p.id join tag t on t.person = p.id where p.id between $n and $n + 15 order by 1, 2, 3, o.id",
    "select natural_one.id from (select id from person where id < 50) natural_one natural join (select id from orders where id % 7 = $s) order by 1",
    "select p.name from person p cross join words w where w.w = '$w' and p.id = w.id",
    "select count(*) from orders where placed >= '$d'",
    "select placed, id from orders order by placed desc, id limit 25",
    "select placed, count(*) from orders where placed between '$d' and date('$d', '+60 days') group by placed order by placed",
    "select strftime('%Y-%m', placed) m, sum(price) from orders group by m order by m",
    "select julianday(placed) - julianday('$d'), unixepoch(placed) from orders where id = $n",
    "select status, count(*) filter (where qty > 4), sum(price) filter (where item = '$w') from orders group by status order by status",
    "select ifnull(status, 'none') s, group_concat(id) from (select * from orders where id < 60 order by id) group by s order by s",
    "select sum(qty), avg(price), min(placed), max(item), count(distinct item), count(distinct person) from orders where person between $n and $n + 100",
    "select case when qty < 3 then 'few' when qty < 6 then 'some' else 'many' end size, count(*) from orders group by size order by size",
    "select id from orders where coalesce(status, 'x') = 'x' and qty = $s order by id desc",
    "select id, iif(price > 100, 'dear', 'cheap'), round(price, 1), abs(qty - 5), price / (qty - qty) from orders where id between $n and $n + 10 order by id",
    "select person, max(price), item from orders group by person having person between $n and $n + 20 order by person",
    "select exists (select 1 from orders where person = $n), exists (select 1 from empty)",
    "select id from person p where exists (select 1 from orders o where o.person = p.id and o.qty = 8) and id < 200 order by id",
    "select id from person p where not exists (select 1 from tag t where t.person = p.id) order by id limit 40",
    "select id, (select count(*) from orders o where o.person = p.id), (select max(weight) from tag t where t.person = p.id) from person p where id between $n and $n + 25 order by id",
    "select id from person where score > (select avg(score) from person) and id % 50 = $s order by id",
    "select id from orders where price = (select max(price) from orders where qty = $s) order by id",
    "select * from (select person, sum(price) s from orders group by person) where s > 500 order by s desc, person limit 10",
    "select id from person where id in (select person from orders where item = '$w' intersect select person from tag) order by id",
    "select item from orders where id < 100 union select w from words where id > 15 order by 1",
    "select id from person where id < 20 union all select id from orders where id < 10 order by 1",
    "select w from words except select item from orders where qty = $s order by 1",
    "select id from person where id % 3 = 0 intersect select id from orders where id % 5 = 0 order by 1 limit 20",
    "select 1, 'a' union select 1.0, 'b' union all select * from (values (2, null), (null, x'00')) order by 1, 2",
    "select tag, count(*), sum(weight) from tag group by tag order by tag",
    "select * from tag where tag = '$w' order by person desc limit 15",
    "select * from tag where person = $n order by tag",
    "select * from tag where tag > 'm' and tag < 'r' order by tag desc, person limit 30",
    "select typeof(weight), count(*) from tag group by 1 order by 1",
    "select count(*) from tag",
    "select id, length(data), tail from blobs order by id",
    "select id, hex(substr(data, $s * 50, 20)), tail from blobs where id > 5 order by id",
    "select tail from blobs where kind = '$w'",
    "select quote(data) from blobs where id = $s",
    "select sum(length(data)), max(tail), count(data) from blobs",
    "select length(data), data = zeroblob(150000), substr(data, 149990) from blobs where id = 100",
    "select id, tail, length(body), substr(body, -9) from texts order by id desc",
    "select body from texts where id = $s",
    "select id from texts where body like '%$w%' order by id",
    "select id from texts where instr(body, '$w') > 0 order by tail",
    "with recursive up(id, parent, depth) as (select id, parent, 0 from tree where id = $n % 300 + 1 union all select t.id, t.parent, depth + 1 from tree t join up on t.id = up.parent) select * from up order by depth",
    "with recursive down(id, depth) as (select $s, 0 union all select t.id, depth + 1 from tree t join down on t.parent = down.id) select depth, count(*) from down group by depth order by depth",
    "with recursive down(id, path) as (select 1, '1' union all select t.id, path || '/' || t.id from tree t join down on t.parent = down.id where t.id < 60 order by 2 desc) select path from down order by path",
    "with recursive fib(a, b) as (values (0, 1) union all select b, a + b from fib limit 30) select a from fib order by a",
    "with m as materialized (select person, count(*) n from orders group by person) select n, count(*) from m group by n order by n",
    "with m as not materialized (select * from person where born > $y) select count(*), (select count(*) from m where city = 'oslo') from m",
    "select id, row_number() over (order by score desc, id), rank() over (order by born), dense_rank() over (order by born) from person where id % 60 = $s order by id",
    "select id, sum(qty) over (partition by item order by id rows between 2 preceding and current row) from orders where id between $n and $n + 60 order by id",
    "select id, lag(price, 1, 0.0) over w, lead(price) over w, first_value(id) over w, last_value(id) over w from orders where person between $n and $n + 10 window w as (partition by person order by id) order by id",
    "select item, avg(price) over (partition by item) from orders where id % 40 = $s order by item, id",
    "select id, ntile(4) over (order by id), percent_rank() over (order by qty), cume_dist() over (order by qty) from orders where id < 40 order by id",
    "select id, sum(price) over (order by placed range between unbounded preceding and current row) from orders where person < 40 order by placed, id",
    "select id, count(*) filter (where qty > 3) over (order by id groups between 3 preceding and 1 following exclude current row) from orders where id between $n and $n + 30 order by id",
    "select person, s, rank() over (order by s desc) from (select person, sum(qty) s from orders group by person) order by s desc, person limit 15",
    "select rowid from doc where doc match '$w' order by rowid",
    "select rowid, title from doc where doc match 'title: $w' order by rowid",
    "select count(*) from doc where doc match 'run'",
    "select rowid from doc where doc match '$w AND garden NOT stone' order by rowid",
    "select rowid from doc where doc match '\"lake forest\"' order by rowid",
    "select rowid from doc where doc match 'mus* OR NEAR(river tower, 5)' order by rowid",
    "select rowid, snippet(doc, 1, '[', ']', '...', 5), highlight(doc, 0, '<', '>') from doc where doc match '$w' order by rowid limit 10",
    "select rowid, bm25(doc) from doc where doc match 'silver' order by rowid",
    "select rowid from doc where doc match 'stone' order by rank, rowid limit 10",
    "select d.rowid, p.name from doc d join person p on p.id = d.rowid where doc match '$w' and p.born > $y order by 1",
    "select title, body from doc where rowid = $n % 250 + 1",
    "select count(*), max(rowid), sum(length(body)) from doc",
    "select id from place where x0 >= $s and x1 <= $s + 20 and y0 > 10 and y1 < 60 order by id",
    "select p.name from place r join person p on p.id = r.id where r.x1 > 97 and r.y0 < 30 order by 1",
    "select * from place where id = $n",
    "select count(*) from place",
    "select a, b from mixed order by a, b",
    "select a, b from mixed order by b desc, a desc",
    "select typeof(a), count(*) from mixed group by typeof(a) order by 1",
    "select a from mixed where a = 1 order by typeof(a)",
    "select a from mixed where a = '1' order by typeof(a)",
    "select a, b from mixed where a > 1 order by a, b",
    "select a is null, a = a, a is not b, a is distinct from b, a || b, a + b from mixed order by a, b",
    "select min(a), max(a), min(b), max(b), count(a), sum(a) from mixed",
    "select distinct a from mixed order by a nulls last",
    "select a, b from mixed where a in (1, 'abc', null) or b is null order by a nulls first, b",
    "select cast(a as integer), cast(b as real), cast(a as text), cast(a as numeric), cast(a as blob) from mixed order by a, b",
    "select a & 3, a << 2, ~a, a % 3, -a from mixed where typeof(a) = 'integer' order by a",
    "select n, count(*) from collated group by n order by n",
    "select b from collated where r = 'x' order by b",
    "select n, b from collated where n = 'ABC' and b is not null order by b",
    "select max(n collate binary), min(n), count(distinct r), count(distinct n) from collated",
    "select b from collated order by b collate nocase, b collate binary",
    "select x.b, y.b from collated x join collated y on x.n = y.b collate nocase where x.b <> y.b order by 1, 2",
    "select * from gen where c = 'c$s' order by id",
    "select sum(b), max(c), count(distinct b) from gen where b > $s",
    "select id, j ->> 'name', j -> 'list', json_extract(j, '$.deep.x') from js order by id",
    "select js.id, e.key, e.value, e.type from js, json_each(js.j, '$.list') e where js.id = $s order by e.key",
    "select fullkey, type, atom from json_tree((select j from js where id = $s)) order by id",
    "select json_group_array(id), json_group_object(j ->> 'name', id) from (select * from js where id <= $s order by id)",
    "select count(*) from js where json_array_length(j, '$.list') = 4 and json_valid(j) and j ->> '$.n' > $s",
    "select json_set(j, '$.n', 'new'), json_remove(j, '$.list', '$.deep'), json_patch(j, '{\"n\": null}') from js where id = $s",
    "select quote(k), v from strong order by k",
    "select v from strong where k = '1' or k = 1 order by v",
    "select count(*), sum(x), max(y), total(x), group_concat(y) from empty",
    "select * from empty e left join words w on w.id = e.x",
    "select w from words left join empty on x = id where x is null order by id",
    "select * from spender where id = $n",
    "select city, sum(n), round(sum(spent), 2) from spender group by city order by city",
    "select id from open_order where qty > 5 and id between $n and $n + 200 order by id desc",
    "select count(*) from open_order join spender on spender.id = open_order.person where spent > 300",
    "select value from generate_series(1, 20, 3) where value <> $s order by value desc",
    "select p.id from generate_series($n, $n + 40, 8) s join person p on p.id = s.value order by 1",
    "select name, type from sqlite_schema where sql is not null and type in ('table', 'view') order by name",
    "select name, type, pk from pragma_table_info('person') order by cid",
    "select seqno, name from pragma_index_info('person_city') order by seqno",
    "select max(length(body)), min(id) from texts where id > (select count(*) from words) - $s",
    "select sum(o.price * (select born from person where id = o.person)) from orders o where o.id % 30 = $s",
    "select city, group_concat(id, ';') from (select * from person where born = $y order by id) group by city order by city",
    "select count(*) from (select distinct person, item from orders)",
    "select id from person where id > 0 and +id < $n and unlikely(score > 100) order by id",
    "select id from person where born between $y and $y + 1 or city is null and id < 40 order by id",
    "select total(length(data)), (select count(*) from texts), (select sum(b) from gen) from blobs",
    "values ($n, '$w'), (null, $s)",
    "pragma integrity_check",
];

/// A value as both programs show it.
#[derive(Clone, Debug)]
enum Cell {
    Null,
    Integer(String),
    Real(f64),
    Text(Vec<u8>),
    Blob(String),
}

/// Floats are compared up to the last digits: the shell is of another version, which sums and prints in other ways.
impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Integer(a), Self::Integer(b)) | (Self::Blob(a), Self::Blob(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Real(a), Self::Real(b)) => a == b || (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
            _ => false,
        }
    }
}

type Answer = Vec<Vec<Cell>>;

fn answer(conn: &Connection, sql: &str) -> Answer {
    let mut statement = conn.prepare(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    let columns = statement.column_count();
    let mut rows = statement.query(()).unwrap();
    let mut out = vec![];
    while let Some(row) = rows.next().unwrap_or_else(|e| panic!("{sql}: {e}")) {
        let cell = |column| match row.get_ref(column).unwrap() {
            ValueRef::Null => Cell::Null,
            ValueRef::Integer(n) => Cell::Integer(n.to_string()),
            ValueRef::Real(f) => Cell::Real(f),
            ValueRef::Text(text) => Cell::Text(text.to_vec()),
            ValueRef::Blob(blob) => Cell::Blob(blob.iter().map(|b| format!("{b:02x}")).collect()),
        };
        out.push((0..columns).map(cell).collect());
    }
    out
}

const MARK: &str = "@@@@ query ";

/// What the shell answers to each query.
fn shell(file: &Path, queries: &[String]) -> Vec<Answer> {
    let mut script = String::from(".mode quote\n");
    for (n, query) in queries.iter().enumerate() {
        script.push_str(&format!(".print \"{MARK}{n}\"\n{query};\n"));
    }
    let mut shell = Command::new("sqlite3")
        .args(["-batch", "-noheader"])
        .arg(file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the sqlite3 shell is installed");
    let mut stdin = shell.stdin.take().unwrap();
    let writing = std::thread::spawn(move || stdin.write_all(script.as_bytes()).unwrap());
    let output = shell.wait_with_output().unwrap();
    writing.join().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.is_empty(), "the shell says {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Answer> = text
        .split(MARK)
        .skip(1)
        .map(|part| cells(part.split_once('\n').unwrap().1.as_bytes()))
        .collect();
    assert_eq!(answers.len(), queries.len());
    answers
}

/// Reads the shell's `quote` mode: SQL literals, commas between columns, a line end behind each row.
fn cells(mut text: &[u8]) -> Answer {
    let (mut rows, mut row) = (vec![], vec![]);
    while !text.is_empty() {
        let (cell, rest) = match text[0] {
            b'\'' => quoted(&text[1..]),
            b'X' | b'x' if text.get(1) == Some(&b'\'') => {
                let (Cell::Text(hex), rest) = quoted(&text[2..]) else {
                    unreachable!()
                };
                (Cell::Blob(String::from_utf8(hex).unwrap().to_lowercase()), rest)
            }
            _ => {
                let end = text.iter().position(|&b| b == b',' || b == b'\n').unwrap();
                let word = std::str::from_utf8(&text[..end]).unwrap();
                let cell = match word {
                    "NULL" => Cell::Null,
                    _ if word.contains(['.', 'e', 'I']) => Cell::Real(word.parse().unwrap()),
                    _ => Cell::Integer(word.to_owned()),
                };
                (cell, &text[end..])
            }
        };
        row.push(cell);
        if rest[0] == b'\n' {
            rows.push(std::mem::take(&mut row));
        }
        text = &rest[1..];
    }
    rows
}

fn quoted(text: &[u8]) -> (Cell, &[u8]) {
    let (mut out, mut at) = (vec![], 0);
    loop {
        match (text[at], text.get(at + 1)) {
            (b'\'', Some(b'\'')) => {
                out.push(b'\'');
                at += 2;
            }
            (b'\'', _) => return (Cell::Text(out), &text[at + 1..]),
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

/// Where the outermost query orders its rows, their order counts; elsewhere it is the planner's.
fn is_ordered(sql: &str) -> bool {
    sql.rfind("order by").is_some_and(|at| !sql[at..].contains(')'))
}

fn sorted(mut answer: Answer) -> Answer {
    answer.sort_by_key(|row| format!("{row:?}"));
    answer
}

fn filled(template: &str, random: &mut fastrand::Rng) -> String {
    let words = [
        "river", "lake", "castle", "garden", "tower", "running", "stone", "über", "market",
    ];
    let replacements = [
        ("$n", random.u32(1..900).to_string()),
        ("$s", random.u32(1..20).to_string()),
        ("$w", words[random.usize(0..words.len())].to_owned()),
        ("$y", random.u32(1940..2010).to_string()),
        (
            "$d",
            format!("202{}-{:02}-15", random.u32(0..3), random.u32(1..13)),
        ),
    ];
    let mut sql = template.to_owned();
    for (name, value) in replacements {
        // Not the `$.x` of a JSON path.
        sql = sql.replace(name, &value);
    }
    sql
}

/// A replica on which a random part of the pages is here.
fn some_replica(served: &Served, page_size: u32, prefetch: bool, random: &mut fastrand::Rng) -> Database {
    let size = std::fs::metadata(&served.file).unwrap().len();
    let segments = [
        u64::from(page_size) * 2,
        u64::from(page_size) * 4,
        16 << 10,
        128 << 10,
    ];
    let bytes = random.u64(1..size / 3);
    let db = Database::builder(":memory:")
        .remote(served.url())
        .partial(PartialSync {
            prefetch: Some(prefetch),
            ..prefix(bytes, segments[random.usize(0..segments.len())])
        })
        .connect()
        .unwrap();
    let conn = db.connection().unwrap();
    let total = db.stats().unwrap().pages_total;
    for _ in 0..random.u32(0..8) {
        let page = random.u32(1..=total);
        let sql = format!("select length(data) from sqlite_dbpage where pgno = {page}");
        assert_eq!(rows(&conn, &sql).unwrap(), [format!("Integer({page_size})")]);
    }
    db
}

const QUERIES_PER_REPLICA: usize = 12;

fn agrees_with_the_shell(page_size: u32) {
    let mut random = fastrand::Rng::with_seed(seed());
    let served = Served::new(&format!("pragma page_size = {page_size}; {SCHEMA}"));
    let mut queries: Vec<String> = vec![];
    for _ in 0..2 {
        queries.extend(QUERIES.iter().map(|template| filled(template, &mut random)));
    }
    let distinct: BTreeSet<&String> = queries.iter().collect();
    assert!(distinct.len() >= 200, "only {} queries", distinct.len());
    random.shuffle(&mut queries);
    let expected = shell(&served.file, &queries);
    let nonempty = expected.iter().filter(|rows| !rows.is_empty()).count();
    assert!(
        nonempty * 10 >= queries.len() * 9,
        "only {nonempty} of {} queries give rows",
        queries.len()
    );
    let mut missing = 0;
    for prefetch in [false, true] {
        for (sqls, answers) in queries
            .chunks(QUERIES_PER_REPLICA)
            .zip(expected.chunks(QUERIES_PER_REPLICA))
        {
            let db = some_replica(&served, page_size, prefetch, &mut random);
            let conn = db.connection().unwrap();
            for (sql, theirs) in sqls.iter().zip(answers) {
                let before = db.stats().unwrap();
                assert_eq!(before.page_size, page_size);
                let ours = answer(&conn, sql);
                missing += usize::from(db.stats().unwrap().pages_present > before.pages_present);
                let same = if is_ordered(sql) {
                    ours == *theirs
                } else {
                    sorted(ours.clone()) == sorted(theirs.clone())
                };
                let differ = ours.iter().zip(theirs).find(|(a, b)| a != b);
                assert!(
                    same,
                    "{sql}: {} rows here, {} from the shell; first difference {differ:?}",
                    ours.len(),
                    theirs.len()
                );
            }
        }
    }
    println!(
        "{} queries, each with prefetch and without; {missing} had to fetch pages",
        queries.len()
    );
    assert!(missing > 100, "only {missing} queries met absent pages");
}

#[test]
fn invariant_5_queries_agree_with_the_shell_with_pages_of_512_bytes() {
    agrees_with_the_shell(512);
}

#[test]
fn invariant_5_queries_agree_with_the_shell_with_pages_of_4096_bytes() {
    agrees_with_the_shell(4096);
}

#[test]
fn invariant_5_queries_agree_with_the_shell_with_pages_of_16384_bytes() {
    agrees_with_the_shell(16384);
}

#[test]
fn invariant_5_queries_agree_with_the_shell_with_pages_of_65536_bytes() {
    agrees_with_the_shell(65536);
}
