//! SQL functions and collations of the program's own. They are known on their connection alone: the remote does not have
//! them, so a trigger, an index or a generated column that uses one does not belong into a replica.

use std::{
    cmp::Ordering,
    panic::{RefUnwindSafe, UnwindSafe},
};

use rusqlite::functions::{Aggregate, Context, FunctionFlags, SqlFnOutput, WindowAggregate};

use crate::{error::Result, sql::connection::Connection};

impl Connection {
    /// Adds a function of `arguments` arguments (-1: any number). It must not use this connection.
    pub fn create_scalar_function<F, T>(
        &self,
        name: &str,
        arguments: i32,
        flags: FunctionFlags,
        function: F,
    ) -> Result<()>
    where
        F: Fn(&mut Context<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: SqlFnOutput,
    {
        Ok(self
            .conn()
            .with_rusqlite(|c| c.create_scalar_function(name, arguments, flags, function))?)
    }

    /// Adds an aggregate function. It must not use this connection.
    pub fn create_aggregate_function<A, D, T>(
        &self,
        name: &str,
        arguments: i32,
        flags: FunctionFlags,
        function: D,
    ) -> Result<()>
    where
        A: RefUnwindSafe + UnwindSafe + Send,
        D: Aggregate<A, T> + Send + 'static,
        T: SqlFnOutput,
    {
        Ok(self
            .conn()
            .with_rusqlite(|c| c.create_aggregate_function(name, arguments, flags, function))?)
    }

    /// Adds an aggregate function that can also be a window function. It must not use this connection.
    pub fn create_window_function<A, W, T>(
        &self,
        name: &str,
        arguments: i32,
        flags: FunctionFlags,
        function: W,
    ) -> Result<()>
    where
        A: RefUnwindSafe + UnwindSafe + Send,
        W: WindowAggregate<A, T> + Send + 'static,
        T: SqlFnOutput,
    {
        Ok(self
            .conn()
            .with_rusqlite(|c| c.create_window_function(name, arguments, flags, function))?)
    }

    /// Removes a function.
    pub fn remove_function(&self, name: &str, arguments: i32) -> Result<()> {
        Ok(self
            .conn()
            .with_rusqlite(|c| c.remove_function(name, arguments))?)
    }

    /// Adds a collation: an order of texts. It must not use this connection.
    pub fn create_collation<C>(&self, name: &str, compare: C) -> Result<()>
    where
        C: Fn(&str, &str) -> Ordering + Send + 'static,
    {
        Ok(self.conn().with_rusqlite(|c| c.create_collation(name, compare))?)
    }

    /// Removes a collation.
    pub fn remove_collation(&self, name: &str) -> Result<()> {
        Ok(self.conn().with_rusqlite(|c| c.remove_collation(name))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Database;

    struct Longest;

    impl Aggregate<usize, i64> for Longest {
        fn init(&self, _: &mut Context<'_>) -> rusqlite::Result<usize> {
            Ok(0)
        }

        fn step(&self, context: &mut Context<'_>, longest: &mut usize) -> rusqlite::Result<()> {
            *longest = (*longest).max(context.get::<String>(0)?.len());
            Ok(())
        }

        fn finalize(&self, _: &mut Context<'_>, longest: Option<usize>) -> rusqlite::Result<i64> {
            Ok(longest.unwrap_or_default() as i64)
        }
    }

    #[test]
    fn a_program_adds_functions_and_collations_of_its_own() -> Result<()> {
        let conn = Database::builder(":memory:").connect()?.connection()?;
        let flags = FunctionFlags::SQLITE_UTF8;
        conn.create_scalar_function("double", 1, flags, |context| Ok(context.get::<i64>(0)? * 2))?;
        conn.create_aggregate_function("longest", 1, flags, Longest)?;
        conn.create_collation("backwards", |a, b| b.cmp(a))?;
        assert_eq!(conn.query::<(i64,)>("SELECT double(21)", ())?, [(42,)]);
        conn.execute_batch("CREATE TABLE t(a); INSERT INTO t VALUES ('a'), ('ccc'), ('bb')")?;
        assert_eq!(conn.query::<(i64,)>("SELECT longest(a) FROM t", ())?, [(3,)]);
        let ordered = "SELECT a FROM t ORDER BY a COLLATE backwards";
        assert_eq!(
            conn.query::<(String,)>(ordered, ())?,
            ["ccc", "bb", "a"].map(|a| (a.to_owned(),))
        );
        conn.remove_function("double", 1)?;
        conn.remove_collation("backwards")?;
        assert!(conn.prepare("SELECT double(21)").is_err() && conn.prepare(ordered).is_err());
        Ok(())
    }
}
