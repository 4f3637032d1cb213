//! Whatever the pages say and in whatever order they are read, a plan holds no forbidden page and stays within its bounds.

use std::collections::HashSet;

use partial_sync_core::{FetchView, PageCount, PageNo, PageSize, Planner, PlannerConfig, SegmentSize};
use proptest::prelude::*;

fn page(n: u32) -> PageNo {
    PageNo::new(n).unwrap()
}

/// An interior table page with these children; the bytes may hold up as one or not.
fn interior(children: &[u32], page_size: usize, at: usize) -> Vec<u8> {
    let mut bytes = vec![0; page_size];
    let (last, left) = children.split_last().unwrap();
    bytes[at] = 5;
    bytes[at + 3..at + 5].copy_from_slice(&(left.len() as u16).to_be_bytes());
    bytes[at + 8..at + 12].copy_from_slice(&last.to_be_bytes());
    for (index, child) in left.iter().enumerate() {
        let cell = page_size - 5 * (index + 1);
        bytes[at + 12 + 2 * index..][..2].copy_from_slice(&(cell as u16).to_be_bytes());
        bytes[cell..cell + 4].copy_from_slice(&child.to_be_bytes());
        bytes[cell + 4] = index as u8;
    }
    bytes
}

struct View {
    size: PageCount,
    unwanted: HashSet<PageNo>,
}

impl FetchView for View {
    fn db_size(&self) -> PageCount {
        self.size
    }

    fn wants(&self, page: PageNo) -> bool {
        !self.unwanted.contains(&page)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Interior(u32, Vec<u32>),
    Bytes(u32, Vec<u8>),
    Read(u32),
    ReadOn(u32, u32),
    Arrive(u32),
    Leave(u32),
    Resize(u32),
    Plan(u32),
    Reset,
}

/// The lock-byte page of a database with pages of 65536 bytes is page 16385.
const LOCK_BYTE: u32 = (1 << 30) / 65536 + 1;

fn op() -> impl Strategy<Value = Op> {
    let page = || prop_oneof![6 => 1..60_u32, 3 => LOCK_BYTE - 20..LOCK_BYTE + 20, 1 => 1..=u32::MAX];
    prop_oneof![
        4 => (page(), prop::collection::vec(page(), 1..40)).prop_map(|(page, children)| Op::Interior(page, children)),
        1 => (page(), prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(page, bytes)| Op::Bytes(page, bytes)),
        4 => page().prop_map(Op::Read),
        2 => (page(), 1..20_u32).prop_map(|(page, count)| Op::ReadOn(page, count)),
        1 => page().prop_map(Op::Arrive),
        1 => page().prop_map(Op::Leave),
        1 => page().prop_map(Op::Resize),
        6 => page().prop_map(Op::Plan),
        1 => Just(Op::Reset),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn invariant_11_no_plan_holds_a_forbidden_page(
        ops in prop::collection::vec(op(), 1..60),
        prefetch in prop::bool::weighted(0.9), segment in 1..2_000_000_u64, max_window in 0..4_000_000_u32,
    ) {
        let page_size = PageSize::new(65536).unwrap();
        let segment = SegmentSize::new(segment).unwrap();
        let config = PlannerConfig { prefetch, max_window, ..PlannerConfig::new(page_size, segment) };
        let mut planner = Planner::new(config);
        let mut view = View { size: PageCount(LOCK_BYTE + 10), unwanted: HashSet::new() };
        for op in ops {
            match op {
                Op::Interior(n, children) => {
                    let bytes = interior(&children, page_size.as_usize(), if n == 1 { 100 } else { 0 });
                    planner.observe_page(page(n), &bytes);
                }
                Op::Bytes(n, bytes) => planner.observe_page(page(n), &bytes),
                Op::Read(n) => planner.observe_read(page(n)),
                Op::ReadOn(n, count) => {
                    for n in n..n.saturating_add(count) {
                        planner.observe_read(page(n));
                    }
                }
                Op::Arrive(n) => {
                    view.unwanted.insert(page(n));
                }
                Op::Leave(n) => {
                    view.unwanted.remove(&page(n));
                }
                Op::Resize(n) => view.size = PageCount(n),
                Op::Reset => planner.reset(),
                Op::Plan(n) => {
                    let wanted = page(n);
                    let plan = planner.plan(wanted, &view);
                    if !view.size.contains(wanted) || n == LOCK_BYTE {
                        prop_assert_eq!(plan, vec![]);
                        continue;
                    }
                    prop_assert_eq!(plan[0], wanted);
                    prop_assert_eq!(plan.iter().collect::<HashSet<_>>().len(), plan.len(), "{:?}", plan);
                    for other in &plan[1..] {
                        prop_assert!(view.wants(*other) && view.size.contains(*other), "{:?}", other);
                        prop_assert_ne!(other.get(), LOCK_BYTE);
                    }
                    let window = if prefetch { max_window / 65536 } else { 0 };
                    prop_assert!(plan.len() as u32 <= segment.pages(page_size) + window);
                }
            }
        }
    }

    #[test]
    fn a_run_through_the_leaves_of_one_parent_asks_for_the_next_ones_in_either_direction(
        from in 0..80_usize, descending: bool,
    ) {
        let children: Vec<u32> = (0..120).map(|n| 1000 + n * 7919 % 5000 * 3).collect();
        let mut planner = Planner::new(PlannerConfig {
            prefetch: true,
            ..PlannerConfig::new(PageSize::new(8192).unwrap(), SegmentSize::new(1).unwrap())
        });
        let view = View { size: PageCount(50_000), unwanted: HashSet::new() };
        planner.observe_page(page(2), &interior(&children, 8192, 0));
        let mut order = children;
        if descending {
            order.reverse();
        }
        prop_assert_eq!(planner.plan(page(order[from]), &view), vec![page(order[from])]);
        let plan = planner.plan(page(order[from + 1]), &view);
        let expected: Vec<_> = order[from + 1..from + 9].iter().map(|n| page(*n)).collect();
        prop_assert_eq!(plan, expected);
        let plan = planner.plan(page(order[from + 2]), &view);
        let expected: Vec<_> = order[from + 2..(from + 18).min(120)].iter().map(|n| page(*n)).collect();
        prop_assert_eq!(plan, expected);
    }
}
