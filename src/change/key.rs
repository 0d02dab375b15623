//! The identity of a document: its namespace and its `_id`, compared as the server compares it.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use bson::RawDocument;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::Namespace;
use super::canonical::{Canonical, canonical};
use super::event::ALLOCATION_BYTES;
use super::raw::{each_element, elements, renamed};

/// One document of one collection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DocumentKey(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    namespace: Namespace,
    /// `{ _id: … }` as the event carried it: the type of the number is kept. Those of numbers,
    /// ObjectIds and UUIDs take no allocation.
    raw: SmallVec<[u8; 32]>,
    canonical: Canonical,
    hash: u64,
}

/// Whatever is known by documents. A key brings its hash along.
pub type KeyMap<V> = HashMap<DocumentKey, V, BuildHasherDefault<KeyHasher>>;
pub type KeySet = HashSet<DocumentKey, BuildHasherDefault<KeyHasher>>;

/// Takes the hash that a key brings along for its own.
#[derive(Debug, Default, Clone, Copy)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = stable_hash(&self.0.to_le_bytes(), bytes);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl DocumentKey {
    /// Takes the `_id` of `document`; other fields (a shard key) are left out.
    ///
    /// Returns nothing where there is no `_id`.
    pub fn of(namespace: &Namespace, document: &RawDocument) -> Option<Self> {
        let mut id = None;
        for part in each_element(document) {
            let part = part.ok()?;
            id = id.or(Some(part).filter(|part| part.name == "_id"));
        }
        let id = id?;
        let canonical = canonical(&id);
        let hash = stable_hash(namespace.as_str().as_bytes(), &canonical);
        Some(Self(Arc::new(Inner {
            namespace: namespace.clone(),
            raw: framed(id.bytes),
            canonical,
            hash,
        })))
    }

    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// The same `_id` in another collection.
    pub fn within(&self, namespace: &Namespace) -> Self {
        let hash = stable_hash(namespace.as_str().as_bytes(), &self.0.canonical);
        Self(Arc::new(Inner {
            namespace: namespace.clone(),
            raw: self.0.raw.clone(),
            canonical: self.0.canonical.clone(),
            hash,
        }))
    }

    /// `{ _id: … }`, byte for byte as the cluster has it.
    pub fn raw(&self) -> &RawDocument {
        RawDocument::from_bytes(&self.0.raw).expect("a key is a whole document")
    }

    /// The `_id` element under another name, as bytes of an element.
    pub fn element_named(&self, name: &str) -> Vec<u8> {
        let parts = elements(self.raw()).expect("a key is a whole document");
        renamed(&parts[0], name)
    }

    /// The same for equal keys on every machine and in every version: lanes and notes depend on it.
    pub fn stable_hash(&self) -> u64 {
        self.0.hash
    }

    /// Stands for the key where many are remembered: equal keys have the same one, and others do
    /// not, even if somebody means them to.
    pub fn digest(&self) -> [u8; 16] {
        let mut hash = Sha256::new();
        hash.update(self.0.namespace.as_str());
        hash.update([0]);
        hash.update(&self.0.canonical);
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        digest
    }

    /// Bytes of memory that a key takes.
    pub fn memory_bytes(&self) -> usize {
        const ALLOCATIONS: usize = 3;
        size_of::<Inner>()
            + self.0.raw.len()
            + self.0.canonical.len()
            + ALLOCATIONS * ALLOCATION_BYTES
    }

    /// The canonical bytes of `_id`.
    pub fn canonical(&self) -> &[u8] {
        &self.0.canonical
    }

    pub fn lane(&self, lanes: usize) -> usize {
        (self.0.hash % lanes.max(1) as u64) as usize
    }
}

impl PartialEq for DocumentKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.hash == other.0.hash
                && self.0.canonical == other.0.canonical
                && self.0.namespace == other.0.namespace)
    }
}

impl Eq for DocumentKey {}

impl Hash for DocumentKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

/// The document of one element.
fn framed(element: &[u8]) -> SmallVec<[u8; 32]> {
    const FRAME_BYTES: usize = 5;
    let bytes = element.len() + FRAME_BYTES;
    let mut framed = SmallVec::with_capacity(bytes);
    framed.extend_from_slice(&(bytes as u32).to_le_bytes());
    framed.extend_from_slice(element);
    framed.push(0);
    framed
}

/// FNV-1a over both parts, then the finisher of MurmurHash3, since lanes take the low bits.
pub(super) fn stable_hash(namespace: &[u8], key: &[u8]) -> u64 {
    const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash = FNV_OFFSET;
    for byte in namespace.iter().chain(&[0]).chain(key) {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bson::RawDocumentBuf;
    use bson::rawdoc;

    fn key(document: &RawDocument) -> DocumentKey {
        DocumentKey::of(&Namespace::new("shop", "orders"), document).unwrap()
    }

    #[test]
    fn equal_ids_of_other_types_are_one_key_and_one_lane() {
        let (int, double) = (key(&rawdoc! { "_id": 1 }), key(&rawdoc! { "_id": 1.0 }));
        assert_eq!(int, double);
        assert_eq!(int.lane(4), double.lane(4));
        assert_ne!(int.raw(), double.raw());
    }

    #[test]
    fn the_namespace_is_part_of_the_key() {
        let other = DocumentKey::of(&Namespace::new("shop", "items"), &rawdoc! { "_id": 1 });
        assert_ne!(key(&rawdoc! { "_id": 1 }), other.unwrap());
    }

    #[test]
    fn the_hash_is_the_same_in_every_version() {
        assert_eq!(
            key(&rawdoc! { "_id": 1 }).stable_hash(),
            17_075_727_347_911_924_455
        );
    }

    #[test]
    fn equal_keys_have_one_digest_and_others_another() {
        let of = |document: &RawDocument| key(document).digest();
        assert_eq!(of(&rawdoc! { "_id": 1 }), of(&rawdoc! { "_id": 1.0 }));
        assert_ne!(of(&rawdoc! { "_id": 1 }), of(&rawdoc! { "_id": 2 }));
    }

    #[test]
    fn keys_spread_over_the_lanes() {
        let mut counts = [0; 4];
        for id in 0..4000 {
            counts[key(&rawdoc! { "_id": id }).lane(4)] += 1;
        }
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn no_bytes_make_a_key_panic_or_grow_without_bound() {
        use super::super::hostile::{any_bytes, any_damage, any_document, broken, for_any};
        use proptest::prelude::*;
        /// A double in full has 770 digits.
        const GROWTH_MAX: usize = 100;
        let documents = prop_oneof![any_bytes(), any_document()];
        for_any((documents, any_damage()), |(document, (changes, cut))| {
            let id = broken(document, &changes, cut);
            let mut row = RawDocumentBuf::new();
            row.append(bson::cstr!("_id"), id.clone());
            for document in [&id, &row] {
                let Some(key) = DocumentKey::of(&Namespace::new("shop", "orders"), document) else {
                    continue;
                };
                let again = DocumentKey::of(&Namespace::new("shop", "orders"), key.raw());
                prop_assert_eq!(Some(&key), again.as_ref());
                prop_assert!(key.canonical().len() <= GROWTH_MAX * document.as_bytes().len());
                prop_assert!(!key.element_named("other").is_empty());
                prop_assert!(key.lane(4) < 4);
            }
            Ok(())
        });
    }

    #[test]
    fn a_key_that_is_nested_without_end_exhausts_no_stack() {
        use super::super::hostile::nested;
        let of = |levels| key(&nested("_id", levels));
        assert_eq!(of(1_000_000), of(1_000_000));
        assert_ne!(of(1_000_000), of(999_999));
    }
}
