//! Places where one CPU leaves something for another, or for an interrupt handler.

use spin::Mutex;

/// Places for one thing each. Nobody waits: a place that somebody else is at is passed over, as if it
/// were full for who leaves, and empty for who takes.
pub(super) struct Mailbox<T> {
    places: [Mutex<Option<T>>; PLACES],
}

const PLACES: usize = 64;

impl<T> Mailbox<T> {
    pub(super) fn new() -> Self {
        Mailbox { places: [const { Mutex::new(None) }; PLACES] }
    }

    /// Leaves something at a place, or gives it back where something lies there already.
    pub(super) fn post(&self, place: u64, thing: T) -> Result<(), T> {
        match self.places[place as usize % PLACES].try_lock() {
            Some(mut there) if there.is_none() => {
                *there = Some(thing);
                Ok(())
            }
            _ => Err(thing),
        }
    }

    /// Takes what lies at a place.
    pub(super) fn take(&self, place: u64) -> Option<T> {
        self.places[place as usize % PLACES].try_lock()?.take()
    }

    /// Takes all there are.
    pub(super) fn take_all(&self) -> impl Iterator<Item = T> {
        (0..PLACES as u64).filter_map(|place| self.take(place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_holds_one_thing() {
        let mailbox = Mailbox::new();
        assert_eq!(mailbox.post(70, 'a'), Ok(()));
        assert_eq!(mailbox.post(70, 'b'), Err('b'));
        assert_eq!(mailbox.post(71, 'c'), Ok(()));
        assert_eq!(mailbox.take(70), Some('a'));
        assert_eq!(mailbox.take(70), None);
        assert_eq!(mailbox.take_all().collect::<alloc::vec::Vec<_>>(), ['c']);
    }

    #[test]
    fn nobody_waits_at_a_place() {
        let mailbox = Mailbox::new();
        mailbox.post(0, 'a').unwrap();
        let busy = mailbox.places[0].lock();
        assert_eq!(mailbox.take(0), None);
        assert_eq!(mailbox.post(0, 'b'), Err('b'));
        drop(busy);
        assert_eq!(mailbox.take(0), Some('a'));
    }
}
