//! An answer, and how it is shown.

use std::collections::BTreeSet;

use kmem::Gfp;
use serde_json::{Value, json};

use crate::console::{COMMAND, REMARK, folded, width};

/// How to get the memory. Sentences name the statements of `docs/acceptance.md` that they rest on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What has to be done once, before.
    pub before: Option<String>,
    /// What answers the memory.
    pub call: String,
    /// The flags that the call takes, if it takes any.
    pub flags: Option<Gfp>,
    /// What makes the memory usable, where the call alone does not.
    pub then: Option<String>,
    /// What gives the memory back.
    pub free: String,
    pub why: Vec<String>,
    /// What else comes into question, and when.
    pub instead: Vec<Alternative>,
    /// What to be careful with.
    pub mind: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    pub call: String,
    pub when: String,
}

impl Advice {
    /// An answer that says only what to call.
    pub fn new(call: impl Into<String>, free: impl Into<String>) -> Self {
        Advice {
            before: None,
            call: call.into(),
            flags: None,
            then: None,
            free: free.into(),
            why: Vec::new(),
            instead: Vec::new(),
            mind: Vec::new(),
        }
    }

    pub fn flags(mut self, gfp: Gfp) -> Self {
        self.flags = Some(gfp);
        self
    }

    pub fn before(mut self, call: impl Into<String>) -> Self {
        self.before = Some(call.into());
        self
    }

    pub fn then(mut self, call: impl Into<String>) -> Self {
        self.then = Some(call.into());
        self
    }

    pub fn why(mut self, sentence: impl Into<String>) -> Self {
        self.why.push(sentence.into());
        self
    }

    pub fn mind(mut self, sentence: impl Into<String>) -> Self {
        self.mind.push(sentence.into());
        self
    }

    pub fn instead(mut self, call: impl Into<String>, when: impl Into<String>) -> Self {
        self.instead.push(Alternative { call: call.into(), when: when.into() });
        self
    }

    /// The statements that the sentences name.
    pub fn ids(&self) -> BTreeSet<String> {
        let whens = self.instead.iter().map(|alternative| &alternative.when);
        self.why.iter().chain(&self.mind).chain(whens).flat_map(|text| ids_in(text)).collect()
    }

    /// Every call that the answer names, as it is written.
    #[cfg(test)]
    pub fn calls(&self) -> Vec<&str> {
        let instead = self.instead.iter().map(|alternative| alternative.call.as_str());
        let own = [Some(&self.call), self.before.as_ref(), self.then.as_ref(), Some(&self.free)];
        own.into_iter().flatten().map(String::as_str).chain(instead).collect()
    }

    /// One line for a program.
    pub fn to_json(&self, machine: &str) -> Value {
        let instead: Vec<Value> = self
            .instead
            .iter()
            .map(|Alternative { call, when }| json!({ "call": call, "when": when }))
            .collect();
        json!({
            "machine": machine,
            "before": self.before,
            "call": self.call,
            "flags": self.flags.map(|gfp| gfp.to_string()),
            "then": self.then,
            "free": self.free,
            "why": self.why,
            "instead": instead,
            "mind": self.mind,
            "ids": self.ids(),
        })
    }

    /// Lines for a person.
    pub fn to_text(&self) -> String {
        let (mut text, width) = (String::new(), width());
        let mut call = |label: &str, call: &str| {
            text += &format!("{REMARK}{label:<8}{REMARK:#}{COMMAND}{call}{COMMAND:#}\n");
        };
        if let Some(before) = &self.before {
            call("before", before);
        }
        call("call", &self.call);
        if let Some(then) = &self.then {
            call("then", then);
        }
        call("free", &self.free);
        let instead = self.instead.iter().map(|other| format!("{}: {}", other.call, other.when));
        for (label, sentences) in
            [("why", self.why.clone()), ("instead", instead.collect()), ("mind", self.mind.clone())]
        {
            for (index, sentence) in sentences.iter().enumerate() {
                let label = if index == 0 { label } else { "" };
                text += &format!("{REMARK}{label:<8}{REMARK:#}{}\n", folded(sentence, 8, width));
            }
        }
        text
    }
}

/// The identifiers in a text.
pub fn ids_in(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| is_id(word)).map(str::to_owned)
}

fn is_id(word: &str) -> bool {
    let digits = word.strip_prefix('A').unwrap_or_default();
    digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_where_sentences_name_them() {
        let ids: Vec<String> = ids_in("GFP_ATOMIC (A132, A119); not A13, XA123 or A1234").collect();
        assert_eq!(ids, ["A132", "A119"]);
    }
}
