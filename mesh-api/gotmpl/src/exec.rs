//! Running templates.

use std::rc::Rc;
use std::sync::Arc;

use serde_json::Value as Json;

use crate::Templates;
use crate::ast::{Block, Command, Node, NodeKind, Operand, Pipeline, Tree, Trees, Word};
use crate::error::{Error, ErrorKind, Fault};
use crate::funcs::{self, Builtin, Run};
use crate::value::{MAX_DEPTH, Value};
use crate::{Function, Missing, parse};

/// Most dictionaries and lists that `set` and `merge` put into others: bounds how deep values can become.
const MAX_NESTED_SETS: usize = 1000;

/// What a block ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// A template that runs.
struct Frame {
    origin: Arc<str>,
    variables: Vec<(String, Value)>,
    dot: Value,
}

/// A run.
struct Exec<'a> {
    templates: &'a Templates,
    /// Templates that a text given to `tpl` defines, innermost last.
    extra: Vec<Rc<Trees>>,
    steps: usize,
    depth: usize,
    written: usize,
    nested_sets: usize,
}

pub(crate) fn render(templates: &Templates, name: &str, data: &Json) -> Result<String, Error> {
    let mut exec = Exec { templates, extra: Vec::new(), steps: 0, depth: 0, written: 0, nested_sets: 0 };
    let unplaced = |fault: Fault| match fault.placed {
        Some(error) => *error,
        None => Error { template: name.to_owned(), line: 1, message: fault.message, kind: fault.kind },
    };
    exec.named(name, Value::from_json(data)).map_err(unplaced)
}

impl Run for Exec<'_> {
    fn named(&mut self, name: &str, data: Value) -> Result<String, Fault> {
        let tree = self.tree(name).ok_or_else(|| Fault::from(format!("there is no template {name:?}")))?;
        let mut out = String::new();
        self.tree_to(&tree, data, &mut out)?;
        Ok(out)
    }

    fn text(&mut self, text: &str, data: Value) -> Result<String, Fault> {
        let name = "tpl";
        let trees = parse::parse(name, text, &|function| self.templates.has_function(function))?;
        self.charge(1 + text.len() / 16)?;
        self.extra.push(Rc::new(trees));
        let done = self.named(name, data);
        self.extra.pop();
        done
    }

    fn charge(&mut self, steps: usize) -> Result<(), Fault> {
        self.steps = self.steps.saturating_add(steps);
        let limit = self.templates.limits.steps;
        if self.steps > limit {
            return Err(Fault::new(ErrorKind::Limit, format!("more than {limit} steps")));
        }
        Ok(())
    }

    fn nested_set(&mut self) -> Result<(), Fault> {
        self.nested_sets += 1;
        if self.nested_sets > MAX_NESTED_SETS {
            let message = format!("more than {MAX_NESTED_SETS} dictionaries or lists are put into dictionaries");
            return Err(Fault::new(ErrorKind::Limit, message));
        }
        Ok(())
    }
}

impl Exec<'_> {
    fn tree(&self, name: &str) -> Option<Tree> {
        let extra = self.extra.iter().rev().find_map(|trees| trees.get(name));
        extra.or_else(|| self.templates.trees.get(name)).cloned()
    }

    fn tree_to(&mut self, tree: &Tree, data: Value, out: &mut String) -> Result<(), Fault> {
        self.enter()?;
        let variables = vec![("$".to_owned(), data.clone())];
        let mut frame = Frame { origin: Arc::clone(&tree.origin), variables, dot: data };
        self.block(&tree.nodes, &mut frame, out)?;
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Result<(), Fault> {
        self.depth += 1;
        let limit = self.templates.limits.depth;
        if self.depth > limit {
            return Err(Fault::new(ErrorKind::Limit, format!("more than {limit} levels of templates and blocks")));
        }
        Ok(())
    }

    fn write(&mut self, text: &str, out: &mut String) -> Result<(), Fault> {
        self.written = self.written.saturating_add(text.len());
        let limit = self.templates.limits.output_bytes;
        if self.written > limit {
            return Err(Fault::new(ErrorKind::Limit, format!("more than {limit} bytes of output")));
        }
        out.push_str(text);
        Ok(())
    }

    fn block(&mut self, nodes: &Block, frame: &mut Frame, out: &mut String) -> Result<Flow, Fault> {
        self.enter()?;
        let known = frame.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            flow = self.node(node, frame, out).map_err(|fault| place(fault, frame, node.line))?;
            if flow != Flow::Next {
                break;
            }
        }
        frame.variables.truncate(known);
        self.depth -= 1;
        Ok(flow)
    }

    fn node(&mut self, node: &Node, frame: &mut Frame, out: &mut String) -> Result<Flow, Fault> {
        self.charge(1)?;
        match &node.kind {
            NodeKind::Text(text) => self.write(text, out)?,
            NodeKind::Action(pipeline) => {
                let value = self.pipeline(pipeline, frame)?;
                if pipeline.variables.is_empty() {
                    self.print(&value, out)?;
                }
            }
            NodeKind::If(pipeline, then, otherwise) => {
                let known = frame.variables.len();
                let chosen = if self.pipeline(pipeline, frame)?.truth() { then } else { otherwise };
                let flow = self.block(chosen, frame, out)?;
                frame.variables.truncate(known);
                return Ok(flow);
            }
            NodeKind::With(pipeline, then, otherwise) => {
                let known = frame.variables.len();
                let value = self.pipeline(pipeline, frame)?;
                let flow = if value.truth() {
                    let outer = std::mem::replace(&mut frame.dot, value);
                    let flow = self.block(then, frame, out)?;
                    frame.dot = outer;
                    flow
                } else {
                    self.block(otherwise, frame, out)?
                };
                frame.variables.truncate(known);
                return Ok(flow);
            }
            NodeKind::Range(pipeline, body, otherwise) => return self.range(pipeline, body, otherwise, frame, out),
            NodeKind::Template(name, data) => {
                let data = match data {
                    Some(pipeline) => {
                        let known = frame.variables.len();
                        let value = self.pipeline(pipeline, frame)?;
                        frame.variables.truncate(known);
                        value
                    }
                    None => Value::Null,
                };
                let tree = self.tree(name).ok_or_else(|| Fault::from(format!("there is no template {name:?}")))?;
                self.tree_to(&tree, data, out)?;
            }
            NodeKind::Break => return Ok(Flow::Break),
            NodeKind::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn print(&mut self, value: &Value, out: &mut String) -> Result<(), Fault> {
        let missing = match self.templates.missing {
            Missing::Empty => "",
            Missing::NoValue => "<no value>",
            Missing::Refused if matches!(value, Value::Null) => return Err("there is no such value".into()),
            Missing::Refused => "",
        };
        match value {
            Value::Str(text) => self.write(text, out),
            other => self.write(&other.text(missing), out),
        }
    }

    fn range(
        &mut self,
        pipeline: &Pipeline,
        body: &Block,
        otherwise: &Block,
        frame: &mut Frame,
        out: &mut String,
    ) -> Result<Flow, Fault> {
        let known = frame.variables.len();
        let value = self.commands(pipeline, frame)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::Null => Vec::new(),
            Value::List(items) => items.iter().enumerate().map(|(at, item)| (int(at), item.clone())).collect(),
            Value::Map(dict) => {
                dict.borrow().iter().map(|(key, item)| (Value::Str(Rc::clone(key)), item.clone())).collect()
            }
            Value::Int(count) => {
                let count = usize::try_from(*count).unwrap_or(0);
                self.charge(count)?;
                (0..count).map(|at| (int(at), int(at))).collect()
            }
            other => return Err(format!("cannot go over a {}", other.kind()).into()),
        };
        let outer = frame.dot.clone();
        let mut flow = Flow::Next;
        if items.is_empty() {
            flow = self.block(otherwise, frame, out)?;
        }
        for (key, item) in items {
            self.charge(1)?;
            match pipeline.variables.as_slice() {
                [] => {}
                [name] => bind(pipeline, name, item.clone(), frame)?,
                [first, second, ..] => {
                    bind(pipeline, first, key, frame)?;
                    bind(pipeline, second, item.clone(), frame)?;
                }
            }
            frame.dot = item;
            let ended = self.block(body, frame, out)?;
            frame.variables.truncate(known);
            if ended == Flow::Break {
                break;
            }
        }
        frame.dot = outer;
        frame.variables.truncate(known);
        // A `break` or `continue` in the `else` part is one of the loop around.
        Ok(flow)
    }

    /// The pipeline's value, which its variables take.
    fn pipeline(&mut self, pipeline: &Pipeline, frame: &mut Frame) -> Result<Value, Fault> {
        let value = self.commands(pipeline, frame)?;
        for name in &pipeline.variables {
            bind(pipeline, name, value.clone(), frame)?;
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, frame: &mut Frame) -> Result<Value, Fault> {
        self.enter()?;
        let mut last = None;
        for command in &pipeline.commands {
            let value = self.command(command, last.take(), frame);
            last = Some(value.map_err(|fault| place(fault, frame, pipeline.line))?);
        }
        self.depth -= 1;
        Ok(last.unwrap_or(Value::Null))
    }

    fn command(&mut self, command: &Command, last: Option<Value>, frame: &mut Frame) -> Result<Value, Fault> {
        self.charge(1)?;
        let Some((first, rest)) = command.words.split_first() else { return Ok(Value::Null) };
        if let Operand::Function(name) = &first.operand {
            let value = self.call(name, rest, last, frame)?;
            return self.fields(value, &first.fields);
        }
        if !rest.is_empty() || last.is_some() {
            return self.method(first, rest, last, frame);
        }
        self.word(first, frame)
    }

    /// A field with arguments: a method of what is before it.
    fn method(&mut self, first: &Word, words: &[Word], last: Option<Value>, frame: &mut Frame) -> Result<Value, Fault> {
        let known = first.fields.split_last().and_then(|(name, before)| {
            self.templates.methods.get(name.as_str()).map(|function| (name, before, function))
        });
        let Some((name, before, function)) = known else { return Err("only a function takes arguments".into()) };
        let receiver = self.word(&Word { operand: first.operand.clone(), fields: before.to_vec() }, frame)?;
        let mut arguments = vec![receiver];
        for word in words {
            arguments.push(self.word(word, frame)?);
        }
        arguments.extend(last);
        self.own(name, function, &arguments)
    }

    /// Calls a function of the caller.
    fn own(&mut self, name: &str, function: &Function, arguments: &[Value]) -> Result<Value, Fault> {
        let arguments: Vec<Json> = arguments.iter().map(Value::to_json).collect::<Result<_, _>>()?;
        let json = function(&arguments).map_err(|message| Fault::from(format!("{name}: {message}")))?;
        let value = Value::from_json(&json);
        self.charge(value.weight())?;
        Ok(value)
    }

    /// Takes fields of a value, each of the one before. What a dictionary has not is null; null has no fields.
    fn fields(&mut self, mut value: Value, names: &[String]) -> Result<Value, Fault> {
        for name in names {
            let found = match &value {
                Value::Map(dict) => dict.borrow().get(name.as_str()).cloned(),
                _ => None,
            };
            value = match (found, self.templates.methods.get(name.as_str())) {
                (Some(found), _) => found,
                (None, Some(function)) => self.own(name, function, &[value])?,
                (None, None) => match value {
                    Value::Map(_) => Value::Null,
                    Value::Null => return Err(format!("cannot take .{name} of what is not there").into()),
                    other => return Err(format!("cannot take .{name} of a {}", other.kind()).into()),
                },
            };
        }
        Ok(value)
    }

    fn word(&mut self, word: &Word, frame: &mut Frame) -> Result<Value, Fault> {
        let value = match &word.operand {
            Operand::Dot => frame.dot.clone(),
            Operand::Nil => Value::Null,
            Operand::Constant(value) => Value::from_json(value),
            Operand::Variable(name) => {
                let found = frame.variables.iter().rev().find(|(known, _)| known == name);
                found.ok_or_else(|| format!("there is no variable {name}"))?.1.clone()
            }
            Operand::Function(name) => self.call(name, &[], None, frame)?,
            Operand::Group(pipeline) => {
                let known = frame.variables.len();
                let value = self.pipeline(pipeline, frame)?;
                frame.variables.truncate(known);
                value
            }
        };
        self.fields(value, &word.fields)
    }

    fn call(&mut self, name: &str, words: &[Word], last: Option<Value>, frame: &mut Frame) -> Result<Value, Fault> {
        let own = self.templates.functions.get(name);
        if own.is_none() && (name == "and" || name == "or") {
            return self.logic(name == "and", words, last, frame);
        }
        let mut arguments = Vec::with_capacity(words.len() + 1);
        for word in words {
            arguments.push(self.word(word, frame)?);
        }
        arguments.extend(last);
        let failed = |mut fault: Fault| {
            if fault.placed.is_none() && fault.kind == ErrorKind::Run {
                fault.message = format!("{name}: {}", fault.message);
            }
            fault
        };
        let value = match (own, funcs::find(name)) {
            (Some(own), _) => self.own(name, own, &arguments)?,
            (None, Some(Builtin::Plain(function))) => function(&arguments).map_err(failed)?,
            (None, Some(Builtin::Running(function))) => function(self, &arguments).map_err(failed)?,
            (None, None) => return Err(format!("there is no function `{name}`").into()),
        };
        self.charge(value.weight())?;
        if value.depth() > MAX_DEPTH {
            return Err(Fault::new(ErrorKind::Limit, format!("{name}: the result has more than {MAX_DEPTH} levels")));
        }
        Ok(value)
    }

    /// `and` and `or` stop at the first argument that decides.
    fn logic(&mut self, and: bool, words: &[Word], last: Option<Value>, frame: &mut Frame) -> Result<Value, Fault> {
        let mut value = Value::Null;
        for word in words {
            value = self.word(word, frame)?;
            if value.truth() != and {
                return Ok(value);
            }
        }
        match last {
            Some(last) => Ok(last),
            None if words.is_empty() => Err("an argument is missing".into()),
            None => Ok(value),
        }
    }
}

fn bind(pipeline: &Pipeline, name: &str, value: Value, frame: &mut Frame) -> Result<(), Fault> {
    if !pipeline.assigns {
        frame.variables.push((name.to_owned(), value));
        return Ok(());
    }
    let known = frame.variables.iter_mut().rev().find(|(known, _)| known == name);
    known.ok_or_else(|| format!("there is no variable {name}"))?.1 = value;
    Ok(())
}

fn int(at: usize) -> Value {
    Value::Int(i64::try_from(at).unwrap_or(i64::MAX))
}

fn place(mut fault: Fault, frame: &Frame, line: usize) -> Fault {
    if fault.placed.is_none() {
        let (template, message) = (frame.origin.to_string(), std::mem::take(&mut fault.message));
        fault.placed = Some(Box::new(Error { template, line, message, kind: fault.kind }));
    }
    fault
}
