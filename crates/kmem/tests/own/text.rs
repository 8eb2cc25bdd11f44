//! Text.

use std::fmt::{self, Write};

use super::common::Rng;
use super::{boot, machines, settled};
use kmem::*;

#[test]
fn text_does_what_rusts_own_does() {
    for mm in machines() {
        let before = settled(&mm);
        let mut rng = Rng::new();
        let (mut text, mut model) = (KString::new_in(&mm), String::new());
        for step in 0..4000 {
            let at = rng.below(model.len() as u64 + 3) as usize;
            match rng.below(8) {
                0..3 => {
                    let character = rng.pick(&['a', 'ß', '€', '𝄞']);
                    text.push(character, GFP_KERNEL).unwrap();
                    model.push(character);
                }
                3 => {
                    text.push_str("größer", GFP_ATOMIC).unwrap();
                    model.push_str("größer");
                }
                4 => {
                    text.write(GFP_KERNEL, format_args!("{step}: {:>7}", at)).unwrap();
                    write!(model, "{step}: {:>7}", at).unwrap();
                }
                5 => assert_eq!(text.pop(), model.pop()),
                6 if rng.percent(20) => {
                    let fits = at >= model.len() || model.is_char_boundary(at);
                    assert_eq!(text.truncate(at), fits);
                    if fits {
                        model.truncate(at);
                    }
                }
                _ => {
                    let bytes = text.try_clone(GFP_KERNEL).unwrap().into_bytes();
                    text = KString::from_utf8(bytes).unwrap();
                }
            }
            assert_eq!(text, model[..]);
            assert_eq!(format!("{text} {text:?}"), format!("{model} {model:?}"));
        }
        drop(text);
        assert_eq!(settled(&mm), before);
    }
}

#[test]
fn what_is_no_text_stays_bytes() {
    let mm = boot(Setup::new());
    let mut bytes = KVec::new_in(&mm);
    bytes.extend_from_slice(b"ab\xffcd", GFP_KERNEL).unwrap();
    let (bytes, error) = KString::from_utf8(bytes).unwrap_err();
    assert_eq!((bytes.as_slice(), error.valid_up_to()), (&b"ab\xffcd"[..], 2));
}

struct Refuses;

impl fmt::Display for Refuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("half of it")?;
        Err(fmt::Error)
    }
}

#[test]
fn text_that_was_not_written_says_why() {
    let mm = boot(Setup::new());
    let mut text = KString::from_str_in("as it was", GFP_KERNEL, &mm).unwrap();
    let refused = text.write(GFP_KERNEL, format_args!("{} {Refuses}", 5));
    assert_eq!(refused, Err(WriteError::Format));
    assert_eq!(text, "as it was");
    let bad = Gfp::NOFAIL;
    let long = "x".repeat(100);
    let Err(WriteError::Alloc(error)) = text.write(bad, format_args!("{long}")) else { panic!() };
    assert!(matches!(error, AllocError::BadFlags(_)), "{error}");
    assert_eq!(text, "as it was");
    let mut writer = text.writer(bad);
    assert!(writer.write_str("!").is_ok(), "there is room");
    assert!(writer.write_str(&long).is_err());
    assert!(writer.write_str("?").is_err(), "nothing after an error");
    assert_eq!(writer.finish(), Err(error));
    assert_eq!(text, "as it was!");
}
