//! What a template's text is read into.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

/// A sequence of nodes.
pub(crate) type Block = Vec<Node>;

/// A named template: its nodes and where they were written.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    /// The text that it was read from, for messages.
    pub(crate) origin: Arc<str>,
    pub(crate) nodes: Arc<Block>,
}

/// Every template by its name.
pub(crate) type Trees = BTreeMap<String, Tree>;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) kind: NodeKind,
}

#[derive(Clone, Debug)]
pub(crate) enum NodeKind {
    Text(String),
    Action(Pipeline),
    If(Pipeline, Block, Block),
    With(Pipeline, Block, Block),
    Range(Pipeline, Block, Block),
    /// Runs a template by its name.
    Template(String, Option<Pipeline>),
    Break,
    Continue,
}

/// Commands, the result of each being the last argument of the next.
#[derive(Clone, Debug)]
pub(crate) struct Pipeline {
    pub(crate) line: usize,
    /// Variables that take the result, with their `$`.
    pub(crate) variables: Vec<String>,
    /// Whether the variables are there already (`=`, not `:=`).
    pub(crate) assigns: bool,
    pub(crate) commands: Vec<Command>,
}

/// A function or value with arguments; never empty.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) words: Vec<Word>,
}

/// An operand and the fields taken of it.
#[derive(Clone, Debug)]
pub(crate) struct Word {
    pub(crate) operand: Operand,
    pub(crate) fields: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) enum Operand {
    /// `.`
    Dot,
    /// `nil`
    Nil,
    /// A number, text or truth.
    Constant(Json),
    /// `$name`, or `$` for the data as a whole.
    Variable(String),
    /// The name of a function.
    Function(String),
    /// `( … )`
    Group(Box<Pipeline>),
}
