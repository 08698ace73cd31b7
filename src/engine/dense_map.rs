//! Maps from dense ids to values: one value for each id, indexed by the id itself.
//!
//! Dense ids count from 0. A map of one kind of id cannot be indexed by another kind, or by a bare number.

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Id that counts from 0.
pub trait DenseId: Copy {
    /// Returns the id at a position.
    fn at(position: usize) -> Self;

    /// Returns the position of the id.
    fn position(self) -> usize;
}

/// Map with one value for each of the ids from 0 to its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenseMap<K, V> {
    values: Vec<V>,
    ids: PhantomData<K>,
}

impl<K: DenseId, V> DenseMap<K, V> {
    /// Returns a map that has the same value for each of `length` ids.
    pub fn filled(length: usize, value: V) -> Self
    where
        V: Clone,
    {
        vec![value; length].into_iter().collect()
    }

    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether the map has no ids.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Adds the value of the next id, and returns that id.
    pub fn push(&mut self, value: V) -> K {
        self.values.push(value);
        K::at(self.values.len() - 1)
    }

    /// Returns the value of an id, or `None` if the map ends before it.
    pub fn get(&self, id: K) -> Option<&V> {
        self.values.get(id.position())
    }

    /// Returns the ids, in order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = K> + use<K, V> {
        (0..self.len()).map(K::at)
    }

    /// Returns the values, in the order of their ids.
    pub fn values(&self) -> std::slice::Iter<'_, V> {
        self.values.iter()
    }

    /// Returns the values for change, in the order of their ids.
    pub fn values_mut(&mut self) -> std::slice::IterMut<'_, V> {
        self.values.iter_mut()
    }

    /// Returns the values, in the order of their ids.
    pub fn into_values(self) -> Vec<V> {
        self.values
    }

    /// Returns the ids with their values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.ids().zip(&self.values)
    }
}

impl<K: DenseId, V> IntoIterator for DenseMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::iter::Map<std::iter::Enumerate<std::vec::IntoIter<V>>, fn((usize, V)) -> (K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.into_iter().enumerate().map(|(position, value)| (K::at(position), value))
    }
}

impl<K: DenseId> DenseMap<K, bool> {
    /// Returns a map of `length` ids that marks the given ones.
    pub fn marking(length: usize, ids: impl IntoIterator<Item = K>) -> Self {
        let mut marks = Self::filled(length, false);
        for id in ids {
            marks[id] = true;
        }
        marks
    }

    /// Returns the ids that are marked, in order.
    pub fn marked(&self) -> impl Iterator<Item = K> {
        self.iter().filter_map(|(id, is_marked)| is_marked.then_some(id))
    }
}

impl<K, V> Default for DenseMap<K, V> {
    fn default() -> Self {
        DenseMap { values: Vec::new(), ids: PhantomData }
    }
}

/// Collects values in the order of their ids, from id 0 on.
impl<K, V> FromIterator<V> for DenseMap<K, V> {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        DenseMap { values: values.into_iter().collect(), ids: PhantomData }
    }
}

impl<K: DenseId, V> Index<K> for DenseMap<K, V> {
    type Output = V;

    fn index(&self, id: K) -> &V {
        &self.values[id.position()]
    }
}

impl<K: DenseId, V> IndexMut<K> for DenseMap<K, V> {
    fn index_mut(&mut self, id: K) -> &mut V {
        &mut self.values[id.position()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Id(usize);

    impl DenseId for Id {
        fn at(position: usize) -> Self {
            Id(position)
        }

        fn position(self) -> usize {
            self.0
        }
    }

    #[test]
    fn each_id_has_its_own_value() {
        let mut map: DenseMap<Id, &str> = ["a", "b"].into_iter().collect();
        assert_eq!(map.push("c"), Id(2));
        map[Id(0)] = "z";
        assert_eq!(map.iter().map(|(id, value)| (id.0, *value)).collect::<Vec<_>>(), [(0, "z"), (1, "b"), (2, "c")]);
        assert_eq!((map.get(Id(2)), map.get(Id(3))), (Some(&"c"), None));
    }

    #[test]
    fn marks_are_found_again() {
        let marks = DenseMap::marking(4, [Id(3), Id(1)]);
        assert_eq!(marks.marked().collect::<Vec<_>>(), [Id(1), Id(3)]);
    }
}
