//! Reading: a machine file, with the place of what is wrong in it, and a setting as it is typed.

use kmem::MAX_NODES;
use kmem::spelling::nearest;
use toml::de::{DeString, DeTable, DeValue};
use toml::{Spanned, Table, Value};

use super::keys::{Key, MACHINE, NODE, Refused};
use super::places::{Place, Places};
use super::{Description, DescriptionError, Node, wrong};

/// The table of a node's keys in a file.
const NODES: &str = "node";

impl Description {
    /// Reads the text form.
    ///
    /// # Errors
    ///
    /// It is not TOML, has a key that there is not, or a value that its key does not take. Whether
    /// the values go together is for [`Description::check`] to say.
    pub fn from_toml(text: &str) -> Result<Self, DescriptionError> {
        Self::read(text, Places::default())
    }

    /// The same, where `places` knows what the file is called.
    pub(super) fn read(text: &str, places: Places) -> Result<Self, DescriptionError> {
        let mut reader = Reader { text, places };
        let table = DeTable::parse(text).map_err(|error| {
            let reason = error.message().lines().collect::<Vec<_>>().join(", ");
            reader
                .at(error.span().map_or(0, |span| span.start), DescriptionError::Syntax { reason })
        })?;
        let mut description = Description::default();
        for (name, value) in in_order(table.get_ref()) {
            if name.get_ref() == NODES {
                description.nodes = reader.nodes(value)?;
            } else {
                let advise = |name: &str| in_file(name, MACHINE, NODE, "a node", "below [[node]]");
                reader.put(&mut description, MACHINE, "", name, value, advise)?;
            }
        }
        description.places = reader.places;
        Ok(description)
    }

    /// Changes one key: `cpus=4`, `dma_limit=none`, `reserved=640K-1M,4G+64K`, `node.1.movable=64M`.
    ///
    /// # Errors
    ///
    /// The text is not `key=value`, there is no such key or node, or the key does not take the
    /// value.
    pub fn set(&mut self, setting: &str) -> Result<(), DescriptionError> {
        let Some((key, value)) = setting.split_once('=') else {
            return Err(DescriptionError::NotASetting { text: setting.into() });
        };
        let (key, text) = (key.trim(), value.trim());
        let value = setting_value(text);
        let unknown = || DescriptionError::NoSuchKey { key: key.into(), advice: for_setting(key) };
        let put = match key.strip_prefix("node.").and_then(|of_node| of_node.split_once('.')) {
            None => put(self, MACHINE, key, &value),
            Some((number, name)) => {
                let index: usize = number.parse().map_err(|_| unknown())?;
                let count = self.nodes.len();
                let Some(node) = self.nodes.get_mut(index) else {
                    let allowed = format!("a node below {count}: the machine has {count}");
                    return Err(wrong("node", index, allowed));
                };
                put(node, NODE, name, &value)
            }
        };
        match put {
            None => Err(unknown()),
            Some(Ok(())) => {
                self.places.forget(key);
                Ok(())
            }
            Some(Err((refused, allowed))) => {
                let item = match refused {
                    Refused::Whole => None,
                    Refused::Item(index) => item_of(&value, index),
                };
                Err(wrong(key, one_line(item.as_deref().unwrap_or(text)), allowed))
            }
        }
    }
}

/// Gives a value to a key of a table. `None`: there is no such key. An error says what the key takes.
fn put<T>(
    target: &mut T,
    keys: &[Key<T>],
    name: &str,
    value: &Value,
) -> Option<Result<(), (Refused, &'static str)>> {
    let key = keys.iter().find(|key| key.name == name)?;
    Some((key.put)(target, value).map_err(|refused| (refused, key.allowed)))
}

/// Reads a text, and notes where its values are.
struct Reader<'t> {
    text: &'t str,
    places: Places,
}

impl Reader<'_> {
    /// An error at a byte of the text.
    fn at(&mut self, byte: usize, error: DescriptionError) -> DescriptionError {
        let place = Some(Place::of(self.text, byte));
        match self.places.of_file(error) {
            DescriptionError::At { file, error, .. } => DescriptionError::At { file, place, error },
            error => DescriptionError::At { file: None, place, error: Box::new(error) },
        }
    }

    /// Reads a key of a table; `prefix` is what stands before it where people write it, and `advise` says
    /// what to do about one that there is not.
    fn put<T>(
        &mut self,
        target: &mut T,
        keys: &[Key<T>],
        prefix: &str,
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        advise: impl Fn(&str) -> String,
    ) -> Result<(), DescriptionError> {
        let key = format!("{prefix}{}", name.get_ref());
        let items: Vec<_> = items(value).map(Spanned::span).collect();
        match put(target, keys, name.get_ref(), &plain(value.get_ref())) {
            Some(Ok(())) => {
                self.places.note(self.text, &key, value.span(), &items);
                Ok(())
            }
            Some(Err((refused, allowed))) => {
                let item = match refused {
                    Refused::Whole => None,
                    Refused::Item(index) => items.get(index).cloned(),
                };
                let span = item.unwrap_or(value.span());
                let written = one_line(self.text.get(span.clone()).unwrap_or_default());
                Err(self.at(span.start, wrong(key, written, allowed)))
            }
            None => {
                let advice = advise(name.get_ref());
                Err(self.at(name.span().start, DescriptionError::NoSuchKey { key, advice }))
            }
        }
    }

    fn nodes(&mut self, value: &Spanned<DeValue<'_>>) -> Result<Vec<Node>, DescriptionError> {
        let refuse = |value: &Spanned<DeValue<'_>>, written: Option<String>, reader: &mut Self| {
            let span = value.span();
            let written = written
                .unwrap_or_else(|| one_line(reader.text.get(span.clone()).unwrap_or_default()));
            let allowed = format!("1 to {MAX_NODES} tables, each below a line [[node]]");
            reader.at(span.start, wrong(NODES, written, allowed))
        };
        let tables = match value.get_ref() {
            DeValue::Array(tables) => tables,
            // Its text is the header, or a part of that.
            DeValue::Table(_) => {
                let header = self.text.get(value.span()).filter(|text| text.starts_with('['));
                let written = header.is_none().then(|| "a table".into());
                return Err(refuse(value, written, self));
            }
            _ => return Err(refuse(value, None, self)),
        };
        let count = tables.len();
        match tables.get(MAX_NODES) {
            Some(first_too_many) => {
                return Err(refuse(first_too_many, Some(format!("{count} tables")), self));
            }
            None if count == 0 => return Err(refuse(value, None, self)),
            None => {}
        }
        let mut nodes = Vec::new();
        for (index, value) in tables.iter().enumerate() {
            let table = value.get_ref().as_table().ok_or_else(|| refuse(value, None, self))?;
            let name = format!("{NODES}.{index}");
            self.places.note(self.text, &name, value.span(), &[]);
            let mut node = Node::default();
            for (key, value) in in_order(table) {
                let place = "above the first [[node]]";
                let advise = |key: &str| in_file(key, NODE, MACHINE, "the machine", place);
                self.put(&mut node, NODE, &format!("{name}."), key, value, advise)?;
            }
            nodes.push(node);
        }
        Ok(nodes)
    }
}

/// A key and its value, with their places.
type Entry<'v, 'i> = (&'v Spanned<DeString<'i>>, &'v Spanned<DeValue<'i>>);

/// The keys of a table as they stand in the text: the first that is wrong is told of.
fn in_order<'v, 'i>(table: &'v DeTable<'i>) -> Vec<Entry<'v, 'i>> {
    let mut keys: Vec<_> = table.iter().collect();
    keys.sort_by_key(|(name, _)| name.span().start);
    keys
}

/// The items of a list; none of anything else.
fn items<'v, 'i>(
    value: &'v Spanned<DeValue<'i>>,
) -> impl Iterator<Item = &'v Spanned<DeValue<'i>>> {
    value.get_ref().as_array().into_iter().flat_map(|items| items.iter())
}

/// The value without places. No key takes a table.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.as_ref().into()),
        // One that does not fit is as good as a text: it is read again, and then refused.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.as_str().into()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or(Value::Float(f64::NAN), Value::Float)
        }
        DeValue::Boolean(is) => Value::Boolean(*is),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| plain(item.get_ref())).collect())
        }
        DeValue::Table(_) => Value::Table(Table::new()),
    }
}

/// A value as it is typed: a list may stand in brackets, as in a file.
fn setting_value(text: &str) -> Value {
    let listed = || toml::from_str::<Table>(&format!("list = {text}")).ok()?.remove("list");
    let listed = if text.starts_with('[') { listed() } else { None };
    listed.unwrap_or_else(|| Value::String(text.into()))
}

/// An item of a list that was typed.
fn item_of(value: &Value, index: usize) -> Option<String> {
    match value {
        Value::Array(items) => items.get(index).map(Value::to_string),
        Value::String(text) => text.split(',').nth(index).map(|item| item.trim().into()),
        _ => None,
    }
}

/// What to do about a key that a table of a file does not have; `others` are those of the other table.
fn in_file<T, U>(name: &str, keys: &[Key<T>], others: &[Key<U>], of: &str, place: &str) -> String {
    if others.iter().any(|key| key.name == name) {
        return format!("it is a key of {of}: write it {place}");
    }
    let names = || keys.iter().map(|key| key.name);
    match nearest(name, names().chain([NODES])) {
        Some(NODES) => "did you mean [[node]]?".into(),
        Some(near) => format!("did you mean '{near}'?"),
        None => format!("it has {}", names().collect::<Vec<_>>().join(", ")),
    }
}

/// The same for a key that was typed.
fn for_setting(key: &str) -> String {
    if NODE.iter().any(|of_node| of_node.name == key) {
        return format!("it is a key of a node: write node.0.{key}");
    }
    let number = key.strip_prefix("node.").and_then(|rest| rest.split('.').next());
    let number = number.and_then(|number| number.parse::<u32>().ok()).unwrap_or(0);
    let names = || {
        let of_node = NODE.iter().map(|key| format!("node.{number}.{}", key.name));
        MACHINE.iter().map(|key| key.name.to_owned()).chain(of_node)
    };
    let names: Vec<String> = names().collect();
    match nearest(key, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => {
            let names: Vec<_> = Description::keys().map(|key| key.name).collect();
            format!("it has {}", names.join(", "))
        }
    }
}

/// What was written, in one line, and cut where it is long.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
