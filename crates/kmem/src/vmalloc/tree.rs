//! A balanced tree of things that lie at addresses (an AVL tree), which carries a summary of each
//! subtree.
//!
//! It owns its nodes and allocates nothing: whoever inserts brings the node, and gets it back.
//! All of its walks go down once: their depth is below one and a half times the logarithm of the number
//! of nodes, some 30 for a million.

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

/// What lies in a tree.
pub(crate) trait Item {
    /// Where it lies. No two in a tree have one.
    fn key(&self) -> usize;

    /// What is summed up over a subtree: the largest counts.
    fn weight(&self) -> usize;
}

/// A node: an item, and what hangs below it.
pub(crate) struct Node<T> {
    item: T,
    left: Link<T>,
    right: Link<T>,
    /// How many levels the subtree has, with this one.
    height: u8,
    /// The largest weight of the subtree.
    heaviest: usize,
}

/// A node that somebody owns: the tree that it is in, or whoever has taken it out.
///
/// # Invariants
///
/// It points to a node that nobody else reaches. It does not free it.
pub(crate) struct Slot<T>(NonNull<Node<T>>);

// SAFETY: it is the only way to the node.
unsafe impl<T: Send> Send for Slot<T> {}

type Link<T> = Option<Slot<T>>;

impl<T> Slot<T> {
    /// Makes a node at a place.
    ///
    /// # Safety
    ///
    /// The place is memory for a node, for as long as the node is used, and nobody else uses it.
    pub(crate) unsafe fn new(place: NonNull<Node<T>>, item: T) -> Slot<T>
    where
        T: Item,
    {
        let heaviest = item.weight();
        let node = Node { item, left: None, right: None, height: 1, heaviest };
        // SAFETY: the caller's promise.
        unsafe { place.write(node) };
        Slot(place)
    }

    /// The item, and the place that the node had.
    pub(crate) fn into_parts(self) -> (T, NonNull<Node<T>>) {
        // SAFETY: the node is this value's, which ends here.
        (unsafe { self.0.read() }.item, self.0)
    }
}

impl<T> Deref for Slot<T> {
    type Target = Node<T>;

    fn deref(&self) -> &Node<T> {
        // SAFETY: the invariant.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Slot<T> {
    fn deref_mut(&mut self) -> &mut Node<T> {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }
    }
}

fn height<T>(link: &Link<T>) -> u8 {
    link.as_ref().map_or(0, |node| node.height)
}

fn heaviest<T>(link: &Link<T>) -> usize {
    link.as_ref().map_or(0, |node| node.heaviest)
}

impl<T: Item> Slot<T> {
    /// Sums up what hangs below, which is right already.
    fn sum_up(&mut self) {
        self.height = 1 + height(&self.left).max(height(&self.right));
        self.heaviest = self.item.weight().max(heaviest(&self.left)).max(heaviest(&self.right));
    }

    /// Brings the subtree into shape: its two sides, which are, differ by two levels at most.
    fn balanced(mut self) -> Slot<T> {
        self.sum_up();
        let (left, right) = (height(&self.left), height(&self.right));
        if left > right + 1 {
            self.left = self.left.take().map(|left| {
                if height(&left.left) < height(&left.right) { left.rotated_left() } else { left }
            });
            return self.rotated_right();
        }
        if right > left + 1 {
            self.right = self.right.take().map(|right| {
                if height(&right.right) < height(&right.left) {
                    right.rotated_right()
                } else {
                    right
                }
            });
            return self.rotated_left();
        }
        self
    }

    /// The left child above this node; this node where there is none.
    fn rotated_right(mut self) -> Slot<T> {
        let Some(mut up) = self.left.take() else { return self };
        self.left = up.right.take();
        self.sum_up();
        up.right = Some(self);
        up.sum_up();
        up
    }

    /// The right child above this node; this node where there is none.
    fn rotated_left(mut self) -> Slot<T> {
        let Some(mut up) = self.right.take() else { return self };
        self.right = up.left.take();
        self.sum_up();
        up.left = Some(self);
        up.sum_up();
        up
    }
}

/// A tree.
pub(crate) struct Tree<T> {
    root: Link<T>,
    count: usize,
}

impl<T> Tree<T> {
    /// Without a node.
    pub(crate) const fn new() -> Self {
        Tree { root: None, count: 0 }
    }

    /// How many nodes it has.
    pub(crate) fn len(&self) -> usize {
        self.count
    }
}

impl<T: Item> Tree<T> {
    /// How many levels it has.
    #[cfg(test)]
    pub(crate) fn levels(&self) -> u8 {
        height(&self.root)
    }

    /// Puts a node in. One with its key comes back.
    ///
    /// # Errors
    ///
    /// There is one with that key: the node.
    pub(crate) fn insert(&mut self, node: Slot<T>) -> Result<(), Slot<T>> {
        fn insert<T: Item>(link: Link<T>, node: Slot<T>) -> (Slot<T>, Option<Slot<T>>) {
            let Some(mut here) = link else { return (node, None) };
            let refused;
            match node.item.key().cmp(&here.item.key()) {
                core::cmp::Ordering::Equal => return (here, Some(node)),
                core::cmp::Ordering::Less => {
                    let (left, back) = insert(here.left.take(), node);
                    (here.left, refused) = (Some(left), back);
                }
                core::cmp::Ordering::Greater => {
                    let (right, back) = insert(here.right.take(), node);
                    (here.right, refused) = (Some(right), back);
                }
            }
            (here.balanced(), refused)
        }
        let (root, refused) = insert(self.root.take(), node);
        self.root = Some(root);
        match refused {
            Some(node) => Err(node),
            None => {
                self.count += 1;
                Ok(())
            }
        }
    }

    /// Takes the node with a key out.
    pub(crate) fn remove(&mut self, key: usize) -> Option<Slot<T>> {
        fn first<T: Item>(mut here: Slot<T>) -> (Link<T>, Slot<T>) {
            match here.left.take() {
                None => (here.right.take(), here),
                Some(left) => {
                    let (rest, first) = first(left);
                    here.left = rest;
                    (Some(here.balanced()), first)
                }
            }
        }
        fn remove<T: Item>(link: Link<T>, key: usize) -> (Link<T>, Link<T>) {
            let Some(mut here) = link else { return (None, None) };
            let taken;
            match key.cmp(&here.item.key()) {
                core::cmp::Ordering::Less => (here.left, taken) = remove(here.left.take(), key),
                core::cmp::Ordering::Greater => {
                    (here.right, taken) = remove(here.right.take(), key)
                }
                core::cmp::Ordering::Equal => {
                    let left = here.left.take();
                    let rest = match here.right.take() {
                        None => left,
                        Some(right) => {
                            let (right, mut next) = first(right);
                            (next.left, next.right) = (left, right);
                            Some(next.balanced())
                        }
                    };
                    here.sum_up();
                    return (rest, Some(here));
                }
            }
            (Some(here.balanced()), taken)
        }
        let (root, taken) = remove(self.root.take(), key);
        self.root = root;
        self.count -= usize::from(taken.is_some());
        taken
    }

    /// The last item whose key is not above `key`.
    pub(crate) fn at_or_below(&self, key: usize) -> Option<&T> {
        let (mut link, mut found) = (&self.root, None);
        while let Some(node) = link {
            if node.item.key() <= key {
                (found, link) = (Some(&node.item), &node.right);
            } else {
                link = &node.left;
            }
        }
        found
    }

    /// The first item from `key` on that weighs so much.
    pub(crate) fn first_of_weight(&self, key: usize, weight: usize) -> Option<&T> {
        fn find<T: Item>(link: &Link<T>, key: usize, weight: usize) -> Option<&T> {
            let node = link.as_ref().filter(|node| node.heaviest >= weight)?;
            if node.item.key() < key {
                return find(&node.right, key, weight);
            }
            // Either side is looked at in vain at most once on the way to the key.
            find(&node.left, key, weight)
                .or_else(|| (node.item.weight() >= weight).then_some(&node.item))
                .or_else(|| find(&node.right, key, weight))
        }
        find(&self.root, key, weight)
    }

    /// The item with a key, for changes that leave its key and its weight.
    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        let mut link = &mut self.root;
        while let Some(node) = link {
            match key.cmp(&node.item.key()) {
                core::cmp::Ordering::Equal => return Some(&mut node.item),
                core::cmp::Ordering::Less => link = &mut node.left,
                core::cmp::Ordering::Greater => link = &mut node.right,
            }
        }
        None
    }

    /// Changes the item with a key, whose key stays; answers what `change` does, if there is one.
    pub(crate) fn change<R>(&mut self, key: usize, change: impl FnOnce(&mut T) -> R) -> Option<R> {
        fn descend<T: Item, R>(
            link: &mut Link<T>,
            key: usize,
            change: impl FnOnce(&mut T) -> R,
        ) -> Option<R> {
            let node = link.as_mut()?;
            let done = match key.cmp(&node.item.key()) {
                core::cmp::Ordering::Equal => Some(change(&mut node.item)),
                core::cmp::Ordering::Less => descend(&mut node.left, key, change),
                core::cmp::Ordering::Greater => descend(&mut node.right, key, change),
            };
            node.sum_up();
            done
        }
        descend(&mut self.root, key, change)
    }

    /// The first item whose key is `key` or above.
    pub(crate) fn at_or_above(&self, key: usize) -> Option<&T> {
        let (mut link, mut found) = (&self.root, None);
        while let Some(node) = link {
            if node.item.key() >= key {
                (found, link) = (Some(&node.item), &node.left);
            } else {
                link = &node.right;
            }
        }
        found
    }
}
