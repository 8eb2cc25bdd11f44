//! The controls of a device: what `ioctl` does on a file that is open on one.
//!
//! Numbers are those of the book's scull where they fit: magic `k`, an `int` behind a pointer. In all kinds
//! "quantum" means [`Kind::size`], which scullp and scullv count as an order.
//!
//! | number | encoded as | what it does |
//! | --- | --- | --- |
//! | [`RESET`] | `_IO('k', 0)` | what may be changed gets its default |
//! | [`SET_QUANTUM`], [`SET_QSET`] | `_IOW('k', 1 and 2, int)` | sets it from the int |
//! | [`GET_QUANTUM`], [`GET_QSET`] | `_IOR('k', 5 and 6, int)` | gets it into the int |
//! | [`QUERY_QUANTUM`], [`QUERY_QSET`] | `_IO('k', 7 and 8)` | answers it |
//! | [`EXCHANGE_QUANTUM`], [`EXCHANGE_QSET`] | `_IOWR('k', 9 and 10, int)` | sets it, gets the former |
//!
//! The book has four more, which take a number where others take a pointer: 3, 4, 11 and 12. They are
//! refused: what the number says about its argument is what a caller in between can see of it.
//!
//! What is set holds for a device from when it is emptied, as with [`Driver::set`].

#[cfg(doc)]
use crate::Kind;
use crate::{Driver, ScullError};

/// The letter that the numbers share.
pub const MAGIC: u8 = b'k';

/// Gives what may be changed its default.
pub const RESET: u32 = number(0, 0);
/// Sets the size of quanta.
pub const SET_QUANTUM: u32 = number(WRITE, 1);
/// Sets how many quanta a set has.
pub const SET_QSET: u32 = number(WRITE, 2);
/// Gets the size of quanta.
pub const GET_QUANTUM: u32 = number(READ, 5);
/// Gets how many quanta a set has.
pub const GET_QSET: u32 = number(READ, 6);
/// Answers the size of quanta.
pub const QUERY_QUANTUM: u32 = number(0, 7);
/// Answers how many quanta a set has.
pub const QUERY_QSET: u32 = number(0, 8);
/// Sets the size of quanta and gets the former one.
pub const EXCHANGE_QUANTUM: u32 = number(READ | WRITE, 9);
/// Sets how many quanta a set has and gets the former number.
pub const EXCHANGE_QSET: u32 = number(READ | WRITE, 10);

/// The kernel reads the argument.
const WRITE: u32 = 1;
/// The kernel writes the argument.
const READ: u32 = 2;

/// Linux's encoding, as most architectures have it: 8 bits of number, 8 of letter, 14 of the argument's
/// size, 2 of direction.
const fn number(direction: u32, number: u32) -> u32 {
    let size = if direction == 0 { 0 } else { size_of::<i32>() as u32 };
    direction << 30 | size << 16 | (MAGIC as u32) << 8 | number
}

/// Does what `command` says with a module, for one of its devices: the parameters are the module's, as in
/// the book. `argument` is the `int` that the caller points to; where the command has none it stays as it is.
/// Answers what `ioctl` returns.
///
/// # Errors
///
/// There is no such command ([`ScullError::NoSuchCommand`]); the value is out of range, or is set when the
/// module is loaded and not later.
///
/// # Context
///
/// A task: it may sleep.
pub fn ioctl(driver: &dyn Driver, command: u32, argument: &mut i32) -> Result<i32, ScullError> {
    let kind = driver.kind();
    let parameters = driver.parameters();
    let quantum = (kind.size, parameters.size);
    let qset = ("qset", parameters.qset);
    match command {
        RESET => {
            for (name, value) in kind.defaults.named(kind) {
                if kind.may_change(name) {
                    driver.set(name, value)?;
                }
            }
            Ok(0)
        }
        SET_QUANTUM => set(driver, quantum, *argument),
        SET_QSET => set(driver, qset, *argument),
        GET_QUANTUM => get(quantum, argument),
        GET_QSET => get(qset, argument),
        QUERY_QUANTUM => int(quantum),
        QUERY_QSET => int(qset),
        EXCHANGE_QUANTUM => exchange(driver, quantum, argument),
        EXCHANGE_QSET => exchange(driver, qset, argument),
        command => Err(ScullError::NoSuchCommand { command }),
    }
}

/// A parameter: its name, and its value now.
type Parameter = (&'static str, u64);

fn int((name, value): Parameter) -> Result<i32, ScullError> {
    let largest = i32::MAX as u64;
    i32::try_from(value).map_err(|_| ScullError::BadParameter { name, value, smallest: 0, largest })
}

fn get(parameter: Parameter, argument: &mut i32) -> Result<i32, ScullError> {
    *argument = int(parameter)?;
    Ok(0)
}

fn set(driver: &dyn Driver, (name, _): Parameter, value: i32) -> Result<i32, ScullError> {
    // One below zero is out of range as a large one is.
    driver.set(name, value as u64)?;
    Ok(0)
}

fn exchange(
    driver: &dyn Driver,
    parameter: Parameter,
    argument: &mut i32,
) -> Result<i32, ScullError> {
    let before = int(parameter)?;
    set(driver, parameter, *argument)?;
    *argument = before;
    Ok(0)
}
