//! Walks the trees, overflow chains and the freelist over the pages that are here and notes whose page each is.
//!
//! A page that has an owner is not entered again, so every walk ends whatever the pages say; the first to claim a page has
//! it. Depth costs no stack.

use partial_sync_core::{
    PageCount, PageNo, PageSize,
    btree::{BTreePage, Payload, next_overflow_page},
    header::DatabaseHeader,
};

use super::{
    schema::{self, Encoding, SchemaRow},
    view::{NO_OWNER, Owner, OwnerKind, PageAt, PageRole, PageView, ReadPage},
};

/// Fills in owner and role of every page that the pages here lead to; gives the owners with their counts.
pub(super) fn attribute(
    source: &mut dyn ReadPage,
    page_size: PageSize,
    pages: &mut [PageView],
) -> Vec<Owner> {
    let mut walk = Walk {
        source,
        pages,
        owners: vec![],
        usable: page_size.bytes(),
        encoding: Encoding(1),
    };
    let Some(header) = walk
        .source
        .read(PageNo::FIRST)
        .and_then(|page| DatabaseHeader::parse(&page).ok())
    else {
        return vec![];
    };
    (walk.usable, walk.encoding) = (header.usable_size(), Encoding(header.text_encoding));
    let schema = walk.owner(
        "sqlite_schema".into(),
        "sqlite_schema".into(),
        OwnerKind::Schema,
        Some(PageNo::FIRST),
    );
    walk.housekeeping(&header, page_size);
    let mut rows = walk.tree(PageNo::FIRST, schema);
    // As the owners are listed: each table before its indexes.
    rows.sort_by(|a, b| {
        (&a.table, a.kind == OwnerKind::Index, &a.name).cmp(&(&b.table, b.kind == OwnerKind::Index, &b.name))
    });
    for row in rows {
        if let Some(root) = PageNo::new(row.root) {
            let owner = walk.owner(row.name, row.table, row.kind, Some(root));
            walk.tree(root, owner);
        }
    }
    walk.freelist(&header);
    walk.counted()
}

struct Walk<'w> {
    source: &'w mut dyn ReadPage,
    pages: &'w mut [PageView],
    owners: Vec<Owner>,
    usable: u32,
    encoding: Encoding,
}

impl Walk<'_> {
    fn owner(&mut self, name: String, table: String, kind: OwnerKind, root: Option<PageNo>) -> u32 {
        self.owners
            .push(Owner::new(name, table, kind, root.map(PageNo::get)));
        self.owners.len() as u32 - 1
    }

    /// Makes a page the owner's. False when it was claimed before or lies beyond the end: damage, unless the pages are of
    /// different moments.
    fn claim(&mut self, page: PageNo, owner: u32, role: PageRole) -> bool {
        match self
            .pages
            .get_mut(page.get() as usize - 1)
            .filter(|view| view.owner == NO_OWNER)
        {
            Some(view) => {
                (view.owner, view.role) = (owner, role);
                true
            }
            None => {
                self.incomplete(owner);
                false
            }
        }
    }

    /// The bytes of a page that was claimed, when it is here.
    fn read(&mut self, page: PageNo, owner: u32) -> Option<Vec<u8>> {
        let here = self.pages[page.get() as usize - 1].at != PageAt::Absent;
        let bytes = here.then(|| self.source.read(page)).flatten();
        if bytes.is_none() {
            self.incomplete(owner);
        }
        bytes
    }

    fn incomplete(&mut self, owner: u32) {
        self.owners[owner as usize].complete = false;
    }

    fn role(&mut self, page: PageNo, role: PageRole) {
        self.pages[page.get() as usize - 1].role = role;
    }

    /// Walks a tree, and gives the rows of the schema when it is that.
    fn tree(&mut self, root: PageNo, owner: u32) -> Vec<SchemaRow> {
        let mut rows = vec![];
        let is_schema = root == PageNo::FIRST;
        // Claimed when they are put here, so that it never holds more than the database has pages.
        let mut ahead = vec![];
        if self.claim(root, owner, PageRole::Unknown) {
            ahead.push(root);
        }
        while let Some(page) = ahead.pop() {
            let Some(bytes) = self.read(page, owner) else {
                continue;
            };
            let Ok(parsed) = BTreePage::parse(page, &bytes, self.usable) else {
                self.incomplete(owner);
                continue;
            };
            self.role(
                page,
                if parsed.kind().is_interior() {
                    PageRole::Interior
                } else {
                    PageRole::Leaf
                },
            );
            for child in parsed.children() {
                match child {
                    Ok(child) if self.claim(child, owner, PageRole::Unknown) => ahead.push(child),
                    Ok(_) => {}
                    Err(_) => self.incomplete(owner),
                }
            }
            for cell in parsed.cells() {
                let Ok(cell) = cell else {
                    self.incomplete(owner);
                    continue;
                };
                let Some(payload) = cell.payload else { continue };
                let head = self.overflow(&payload, owner, if is_schema { schema::PREFIX } else { 0 });
                if is_schema {
                    rows.extend(schema::row(&head, self.encoding));
                }
            }
        }
        rows
    }

    /// Claims the overflow pages of a record and gives its first `keep` bytes, as far as they are here.
    fn overflow(&mut self, payload: &Payload, owner: u32, keep: usize) -> Vec<u8> {
        let mut head = payload.local[..payload.local.len().min(keep)].to_vec();
        let mut next = payload.overflow;
        for _ in 0..payload.overflow_pages(self.usable) {
            let Some(page) = next else {
                self.incomplete(owner);
                break;
            };
            if !self.claim(page, owner, PageRole::Overflow) {
                break;
            }
            let Some(bytes) = self.read(page, owner) else {
                break;
            };
            let content = bytes.get(4..self.usable as usize).unwrap_or_default();
            head.extend(content.iter().take(keep.saturating_sub(head.len())));
            next = next_overflow_page(&bytes);
        }
        head
    }

    /// The list of free pages: trunk pages, each with the next trunk and the numbers of free pages.
    fn freelist(&mut self, header: &DatabaseHeader) {
        let Some(first) = PageNo::new(header.first_free_page) else {
            return;
        };
        let owner = self.owner("free pages".into(), String::new(), OwnerKind::Freelist, None);
        let mut next = Some(first);
        while let Some(trunk) = next {
            if !self.claim(trunk, owner, PageRole::Free) {
                return;
            }
            let Some(bytes) = self.read(trunk, owner) else {
                return;
            };
            let mut numbers = bytes.as_chunks::<4>().0.iter().map(|&n| u32::from_be_bytes(n));
            next = numbers.next().and_then(PageNo::new);
            let count = numbers.next().unwrap_or(0).min(self.usable / 4 - 2) as usize;
            for leaf in numbers.take(count).filter_map(PageNo::new) {
                // What a free page holds does not matter: it is not read, and being absent loses nothing.
                if let Some(view) = self
                    .pages
                    .get_mut(leaf.get() as usize - 1)
                    .filter(|v| v.owner == NO_OWNER)
                {
                    (view.owner, view.role) = (owner, PageRole::Free);
                }
            }
        }
    }

    /// Pointer-map pages lie at fixed places (<https://www.sqlite.org/fileformat2.html#pointer_map_or_ptrmap_pages>), the
    /// lock-byte page at another.
    fn housekeeping(&mut self, header: &DatabaseHeader, page_size: PageSize) {
        let size = PageCount(self.pages.len() as u32);
        let lock_byte = Some(PageNo::lock_byte(page_size)).filter(|&page| size.contains(page));
        let mut places: Vec<(PageNo, PageRole)> =
            lock_byte.iter().map(|&p| (p, PageRole::LockByte)).collect();
        if header.largest_root != 0 {
            let step = self.usable / 5 + 1;
            let maps = (2..=size.0).step_by(step as usize).filter_map(PageNo::new);
            let maps = maps.map(|p| {
                if p.is_lock_byte_page(page_size) {
                    p.next().unwrap_or(p)
                } else {
                    p
                }
            });
            places.extend(
                maps.filter(|&p| size.contains(p))
                    .map(|p| (p, PageRole::PointerMap)),
            );
        }
        if places.is_empty() {
            return;
        }
        let owner = self.owner(
            "pointer maps and lock page".into(),
            String::new(),
            OwnerKind::Housekeeping,
            None,
        );
        for (page, role) in places {
            let view = &mut self.pages[page.get() as usize - 1];
            (view.owner, view.role) = (owner, role);
        }
    }

    fn counted(mut self) -> Vec<Owner> {
        for view in self.pages.iter() {
            let Some(owner) = view.owner().and_then(|owner| self.owners.get_mut(owner)) else {
                continue;
            };
            match view.at {
                PageAt::Absent => owner.absent += 1,
                PageAt::Present => owner.present += 1,
                PageAt::Dirty => owner.dirty += 1,
            }
        }
        std::mem::take(&mut self.owners)
    }
}
