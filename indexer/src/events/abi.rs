//! The events of an ABI: a JSON array, an artefact of Foundry, Hardhat or Truffle, or lines such as
//! `event Transfer(address indexed from, address indexed to, uint256 value)`.

use std::collections::HashMap;
use std::fmt;

use alloy::json_abi::{Event as Item, EventParam, Param as Component};
use alloy::primitives::B256;
use serde_json::Value;

use super::signature;
use super::ty::Ty;

/// Most parameters of an event: a table has at most 1,600 columns, and the compiler allows far fewer.
const PARAMS: usize = 200;
/// Most events of an ABI.
const EVENTS: usize = 5_000;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name in the contract.
    pub name: String,
    /// Its name and types, which are hashed.
    pub signature: String,
    /// The hash of its signature; `None` if it is anonymous, and so has no first topic of its own.
    pub topic0: Option<B256>,
    /// Its parameters, in order.
    pub params: Vec<Param>,
    /// The author's description (NatSpec), or an empty text.
    pub about: String,
}

/// A parameter of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name in the contract; may be empty.
    pub name: String,
    /// Its type.
    pub ty: Ty,
    /// Its type in the contract's words, such as `enum Token.State`.
    pub solidity: String,
    /// Whether it is a topic.
    pub indexed: bool,
    /// The author's description (NatSpec), or an empty text.
    pub about: String,
}

impl Event {
    /// The number of its logs' topics.
    pub fn topics(&self) -> usize {
        usize::from(self.topic0.is_some()) + self.params.iter().filter(|param| param.indexed).count()
    }
}

/// `Transfer(address indexed from, address indexed to, uint256 value)`.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(", self.name)?;
        for (at, param) in self.params.iter().enumerate() {
            let (comma, indexed) = (if at > 0 { ", " } else { "" }, if param.indexed { " indexed" } else { "" });
            let name = if param.name.is_empty() { String::new() } else { format!(" {}", param.name) };
            write!(f, "{comma}{}{indexed}{name}", param.solidity)?;
        }
        f.write_str(if self.topic0.is_some() { ")" } else { ") anonymous" })
    }
}

/// The events of a file, and what of it could not be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Abi {
    /// Each event once, in the order of the file.
    pub events: Vec<Event>,
    /// What could not be read: the name of an event or its place, and why.
    pub skipped: Vec<String>,
}

impl Abi {
    /// Reads the text of a file. An item that cannot be read is left out and named in [`Abi::skipped`]: the events beside it are
    /// good.
    ///
    /// # Errors
    /// It is no ABI, or holds no event, or two that cannot be told apart.
    pub fn read(text: &str) -> Result<Self, String> {
        let mut abi = match text.trim_start().chars().next() {
            Some('[' | '{') => Self::of_json(text)?,
            _ => Self::of_lines(text),
        };
        if abi.events.is_empty() {
            let why = abi.skipped.first().map_or(String::new(), |first| format!(": {first}"));
            return Err(format!("it holds no event{why}"));
        }
        abi.once()?;
        Ok(abi)
    }

    /// These events and those of another version of the ABI, each once.
    ///
    /// # Errors
    /// Two of them cannot be told apart.
    pub fn joined(mut self, more: Self) -> Result<Self, String> {
        self.events.extend(more.events);
        self.skipped.extend(more.skipped);
        self.once()?;
        Ok(self)
    }

    fn of_json(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("it is not JSON: {error}"))?;
        let array = value.as_array().or_else(|| value.get("abi")?.as_array());
        let Some(items) = array else {
            return Err("it is neither an array of items nor an artefact with one as \"abi\"".into());
        };
        let (docs, mut abi) = (Docs::of(&value), Self::default());
        for (at, item) in items.iter().enumerate() {
            // Texts are signatures, as in some libraries' human-readable ABIs.
            if let Some(line) = item.as_str() {
                abi.add_line(line, &docs);
            } else if item.get("type").and_then(Value::as_str) == Some("event") {
                let mut item = item.clone();
                if let Some(fields) = item.as_object_mut() {
                    // Old compilers wrote no such field.
                    fields.entry("anonymous").or_insert(false.into());
                }
                let name = item.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                let read = serde_json::from_value::<Item>(item).map_err(|error| error.to_string());
                abi.add(read.and_then(|item| docs.event(&item)), || format!("event {name} (item {at})"));
            }
        }
        Ok(abi)
    }

    fn of_lines(text: &str) -> Self {
        let mut abi = Self::default();
        for line in text.lines() {
            abi.add_line(line, &Docs::default());
        }
        abi
    }

    /// Lines of functions, errors and comments hold no event.
    fn add_line(&mut self, line: &str, docs: &Docs) {
        let line = line.trim().trim_end_matches(';');
        let word = line.split_whitespace().next().unwrap_or_default();
        if line.is_empty() || line.starts_with("//") || line.starts_with('#') || OTHERS.contains(&word) {
            return;
        }
        let item = signature::item(line.strip_prefix("event ").unwrap_or(line));
        let item = item.ok_or_else(|| "it is not the signature of an event".to_owned());
        let read = item.and_then(|item| serde_json::from_value::<Item>(item).map_err(|error| error.to_string()));
        self.add(read.and_then(|item| docs.event(&item)), || format!("{line:?}"));
    }

    fn add(&mut self, read: Result<Event, String>, of: impl Fn() -> String) {
        match read {
            Ok(event) if self.events.len() < EVENTS => self.events.push(event),
            Ok(_) => self.skipped.push(format!("{}: there are more than {EVENTS} events", of())),
            Err(why) => self.skipped.push(format!("{}: {why}", of())),
        }
    }

    /// Leaves each event once: the ABI of a contract repeats those that it inherits.
    fn once(&mut self) -> Result<(), String> {
        let mut seen: HashMap<(Option<B256>, String, usize), Event> = HashMap::new();
        let mut clash = None;
        self.events.retain(|event| {
            let key = (event.topic0, event.signature.clone(), event.topics());
            let Some(first) = seen.get(&key) else {
                seen.insert(key, event.clone());
                return true;
            };
            let places = |event: &Event| event.params.iter().map(|param| param.indexed).collect::<Vec<_>>();
            if places(first) != places(event) {
                clash = Some(format!(
                    "{first} and {event} cannot be told apart: they have the same first topic and the same number of topics"
                ));
            }
            false
        });
        clash.map_or(Ok(()), Err)
    }
}

/// The first words of lines without an event.
const OTHERS: &[&str] =
    &["function", "error", "constructor", "fallback", "receive", "struct", "enum", "modifier", "/*", "*", "*/"];

/// The authors' descriptions of events, by signature: as the compiler's metadata in an artefact holds them.
#[derive(Default)]
struct Docs {
    events: HashMap<String, Doc>,
}

#[derive(Default)]
struct Doc {
    about: String,
    params: HashMap<String, String>,
}

impl Docs {
    fn of(artefact: &Value) -> Self {
        let mut docs = Self::default();
        // Foundry leaves the descriptions of events out of `metadata`; the text of the compiler beside it has them.
        let raw = artefact.get("rawMetadata").and_then(Value::as_str);
        let raw: Option<Value> = raw.and_then(|text| serde_json::from_str(text).ok());
        let output = raw.as_ref().unwrap_or(artefact).get("output").or_else(|| artefact.pointer("/metadata/output"));
        let output = output.unwrap_or(artefact);
        for (of, key) in [("userdoc", "notice"), ("devdoc", "details")] {
            let events = output.pointer(&format!("/{of}/events")).and_then(Value::as_object);
            for (signature, event) in events.into_iter().flatten() {
                let doc = docs.events.entry(signature.clone()).or_default();
                if let Some(about) = event.get(key).and_then(Value::as_str).map(comment) {
                    let space = if doc.about.is_empty() { "" } else { " " };
                    doc.about = format!("{}{space}{about}", doc.about);
                }
                for (name, about) in event.get("params").and_then(Value::as_object).into_iter().flatten() {
                    doc.params.extend(about.as_str().map(|about| (name.clone(), comment(about))));
                }
            }
        }
        docs
    }

    /// An item as an event.
    fn event(&self, item: &Item) -> Result<Event, String> {
        if item.inputs.len() > PARAMS {
            return Err(format!("it has more than {PARAMS} parameters"));
        }
        let indexed = item.inputs.iter().filter(|param| param.indexed).count();
        let most = if item.anonymous { 4 } else { 3 };
        if indexed > most {
            return Err(format!("it has {indexed} indexed parameters, and a log has at most {most} of them"));
        }
        // The hash is of the types below enums and structs.
        let signature = item.signature();
        let none = Doc::default();
        let doc = self.events.get(&signature).unwrap_or(&none);
        let params = item.inputs.iter().map(|param| {
            let ty =
                Ty::parse(&param.ty, &param.components).map_err(|why| format!("parameter {}: {why}", param.name))?;
            Ok(Param {
                name: param.name.clone(),
                ty,
                solidity: solidity(param),
                indexed: param.indexed,
                about: doc.params.get(&param.name).cloned().unwrap_or_default(),
            })
        });
        Ok(Event {
            name: item.name.clone(),
            topic0: (!item.anonymous).then(|| item.selector()),
            params: params.collect::<Result<_, String>>()?,
            about: doc.about.clone(),
            signature,
        })
    }
}

/// The type as its author wrote it, or as far as the ABI tells.
fn solidity(param: &EventParam) -> String {
    match &param.internal_type {
        Some(of) => comment(&of.to_string()),
        None => with_members(&param.ty, &param.components),
    }
}

/// A text of a file as a part of a comment in the database: in one line, without NUL, which PostgreSQL refuses, and not too long.
fn comment(text: &str) -> String {
    const LETTERS: usize = 1_000;
    let line = text.split(|letter: char| letter.is_whitespace() || letter.is_control()).filter(|word| !word.is_empty());
    line.collect::<Vec<_>>().join(" ").chars().take(LETTERS).collect()
}

fn with_members(ty: &str, members: &[Component]) -> String {
    match ty.strip_prefix("tuple") {
        Some(sizes) if !members.is_empty() => {
            let of: Vec<String> = members
                .iter()
                .map(|member| {
                    format!("{} {}", with_members(&member.ty, &member.components), member.name).trim_end().to_owned()
                })
                .collect();
            format!("({}){sizes}", of.join(", "))
        }
        _ => ty.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::keccak256;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_abi_is_read_from_each_form() {
        let line = "event Transfer(address indexed from, address indexed to, uint256 value)";
        let json = r#"[{"type":"event","name":"Transfer","inputs":[
            {"name":"from","type":"address","indexed":true},{"name":"to","type":"address","indexed":true},
            {"name":"value","type":"uint256","indexed":false}]},
            {"type":"function","name":"f"},{"type":"something new"}, 7]"#;
        let of_line = Abi::read(line).unwrap();
        assert_eq!(of_line.events.len(), 1);
        let event = &of_line.events[0];
        assert_eq!(format!("event {event}"), line);
        assert_eq!((event.topic0, event.topics()), (Some(keccak256("Transfer(address,address,uint256)")), 3));
        let artefact = format!(r#"{{"bytecode": {{"object": "0x__$unlinked$__"}}, "abi": {json}}}"#);
        let lines = format!("// tokens\nfunction f()\n{line};\n\n{}", &line[6..]);
        let strings = format!("[{line:?}, \"function f()\"]");
        for text in [json, &artefact, &lines, &strings] {
            assert_eq!(Abi::read(text).unwrap(), of_line, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_and_the_rest_is_read() {
        let abi = Abi::read(
            r#"["event A(uint8 a)", "event B(uint7 b)", {"type":"event","name":"C","inputs":[{"name":"c","type":"map"}]},
                {"type":"event","name":"D","inputs":[{"name":"d","type":"bool","indexed":true},{"name":"d","type":"bool","indexed":true},
                {"name":"d","type":"bool","indexed":true},{"name":"d","type":"bool","indexed":true}]}]"#,
        )
        .unwrap();
        assert_eq!(abi.events.len(), 1, "{abi:#?}");
        assert_eq!(abi.skipped.len(), 3, "{:#?}", abi.skipped);
        assert!(abi.skipped[1].starts_with("event C (item 2)"), "{:?}", abi.skipped);
        for (text, why) in [
            ("", "it holds no event"),
            ("{", "it is not JSON"),
            ("{}", "neither an array"),
            ("[]", "it holds no event"),
            ("event X(uint7 a)", "it holds no event: \"event X(uint7 a)\": parameter a"),
            ("event A(uint8 indexed a, uint8 b)\nevent A(uint8 a, uint8 indexed b)", "cannot be told apart"),
        ] {
            let said = Abi::read(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
        let twice = Abi::read("event A(uint8 indexed a)\nevent A(uint8 a)\nevent A(uint8 a)").unwrap();
        assert_eq!(twice.events.len(), 2, "the number of topics tells them apart");
    }

    #[test]
    fn the_authors_words_are_kept() {
        let abi = Abi::read(
            r#"{"abi":[{"type":"event","name":"A","anonymous":false,"inputs":[
                {"name":"s","type":"tuple","internalType":"struct T.S","components":[{"name":"x","type":"uint8"}]},
                {"name":"e","type":"uint8","internalType":"enum T.E"}]},
                {"type":"event","name":"N","anonymous":true,"inputs":[]}],
                "metadata":{"output":{"devdoc":{"events":{"A((uint8),uint8)":{"details":"Really.","params":{"e":"the state"}}}},
                "userdoc":{"events":{"A((uint8),uint8)":{"notice":"It happened."}}}}}}"#,
        )
        .unwrap();
        let event = &abi.events[0];
        assert_eq!((event.about.as_str(), event.params[1].about.as_str()), ("It happened. Really.", "the state"));
        let raw = json!({ "output": { "userdoc": { "events": { "A()": { "notice": "As the compiler says." } } } } })
            .to_string();
        let foundry = json!({ "abi": ["event A()"], "rawMetadata": raw, "metadata": { "output": { "userdoc": {} } } });
        assert_eq!(Abi::read(&foundry.to_string()).unwrap().events[0].about, "As the compiler says.");
        assert_eq!(event.to_string(), "A(struct T.S s, enum T.E e)");
        assert_eq!((comment("a\0 b\n  c"), comment(&"ä".repeat(2_000)).chars().count()), ("a b c".into(), 1_000));
        assert_eq!((abi.events[1].topic0, abi.events[1].topics()), (None, 0));
        assert_eq!(abi.events[1].to_string(), "N() anonymous");
    }
}
