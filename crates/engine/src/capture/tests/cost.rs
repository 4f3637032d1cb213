use super::*;
#[test]
#[ignore]
fn cost() {
    for sync in ["FULL", "NORMAL"] {
        for round in 0..8 {
            let mut times = vec![];
            for capture in [false, true] {
                let db = Recorded::new("create table t(id integer primary key,a text,b int); create index tb on t(b);
                   insert into t select value, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', value * 7919 % 100003 from (select 1 as value)");
                let c = db.open(capture.then(|| db.floor.clone()));
                c.execute_batch(&format!("PRAGMA synchronous={sync}; begin; insert into t select value, 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx', value * 7919 % 100003 from generate_series(2,100000); commit")).unwrap();
                let mut s = c.prepare("update t set a=? where id=?").unwrap();
                let n = if sync == "FULL" { 1000 } else { 5000 };
                let t = std::time::Instant::now();
                for i in 0..n {
                    s.execute((format!("y{round}"), i * 37 % 100000 + 1)).unwrap();
                }
                let one = t.elapsed();
                let t = std::time::Instant::now();
                c.execute_batch("BEGIN").unwrap();
                let mut s = c.prepare("insert into t values (?,?,?)").unwrap();
                for i in 0..50000i64 {
                    s.execute((
                        i + 1000000,
                        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
                        i * 7919 % 100003,
                    ))
                    .unwrap();
                }
                c.execute_batch("COMMIT").unwrap();
                times.push((
                    one.as_secs_f64() / n as f64 * 1e6,
                    t.elapsed().as_secs_f64() / 50000.0 * 1e6,
                ));
            }
            println!(
                "{sync} one-row txn {:.1} -> {:.1} us ({:.2}x)  bulk {:.2} -> {:.2} us ({:.2}x)",
                times[0].0,
                times[1].0,
                times[1].0 / times[0].0,
                times[0].1,
                times[1].1,
                times[1].1 / times[0].1
            );
        }
    }
}
