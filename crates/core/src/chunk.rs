//! What is saved of a page map at a time: the pages of one chunk, an aligned run of 4096, that are here and that are dirty.
//! A chunk is what it says, not what changed: of two that were saved the later one counts.

/// Page ids of one chunk.
pub const CHUNK_PAGES: u32 = 4096;
/// Chunks of the largest map.
pub const CHUNKS: u32 = 1 << 20;
/// Words of 64 pages in a chunk.
pub const CHUNK_WORDS: usize = (CHUNK_PAGES / 64) as usize;

/// Some of the pages of a chunk, by their place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bits {
    /// None of them.
    Empty,
    /// All of them.
    Full,
    /// Those whose bit is set; neither none nor all.
    Some(Box<[u64; CHUNK_WORDS]>),
}

impl Bits {
    /// The pages whose bits are set.
    pub fn of(words: [u64; CHUNK_WORDS]) -> Self {
        if words.iter().all(|word| *word == 0) {
            Self::Empty
        } else if words.iter().all(|word| *word == u64::MAX) {
            Self::Full
        } else {
            Self::Some(Box::new(words))
        }
    }

    /// The bits of 64 pages.
    pub fn word(&self, nth: usize) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Full => u64::MAX,
            Self::Some(words) => words[nth],
        }
    }

    /// Whether a page is among them.
    pub fn contains(&self, nth: u32) -> bool {
        self.word((nth / 64) as usize) >> (nth % 64) & 1 == 1
    }
}

/// Chunks that follow each other and hold the same: one, unless each set of it is empty or full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The first of them.
    pub first: u32,
    /// How many.
    pub count: u32,
    /// The pages that are here.
    pub present: Bits,
    /// The pages that were written locally since the base revision.
    pub dirty: Bits,
}

impl Chunk {
    /// Lengthens the last of `chunks` by this one, or puts it after them.
    pub fn append_to(self, chunks: &mut Vec<Self>) {
        let many = |bits: &Bits| !matches!(bits, Bits::Some(_));
        match chunks.last_mut() {
            Some(last)
                if last.first + last.count == self.first
                    && many(&self.present)
                    && many(&self.dirty)
                    && last.present == self.present
                    && last.dirty == self.dirty =>
            {
                last.count += self.count;
            }
            _ => chunks.push(self),
        }
    }
}
