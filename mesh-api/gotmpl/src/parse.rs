//! Tokens to trees.

use std::sync::Arc;

use serde_json::Value as Json;

use crate::ast::{Block, Command, Node, NodeKind, Operand, Pipeline, Tree, Trees, Word};
use crate::error::{Error, ErrorKind};
use crate::lex::{self, Placed, Token};

/// Deepest nesting of actions and parentheses.
const MAX_NESTING: usize = 100;

struct Parser<'a> {
    name: &'a str,
    tokens: &'a [Placed],
    at: usize,
    depth: usize,
    /// Loops around the place that is read.
    loops: usize,
    trees: Trees,
    functions: &'a dyn Fn(&str) -> bool,
    /// Variables that are known where we are, innermost last.
    variables: Vec<String>,
}

/// Words that are no functions.
const KEYWORDS: [&str; 11] =
    ["if", "else", "end", "range", "with", "define", "block", "template", "break", "continue", "nil"];

/// How a block ended.
enum Stop {
    /// With the text.
    Text,
    /// With `end`.
    Closed,
    /// With `else`.
    Else,
}

/// Reads the template `name` and those that it defines. `functions` says which functions there are.
pub(crate) fn parse(name: &str, text: &str, functions: &dyn Fn(&str) -> bool) -> Result<Trees, Error> {
    let tokens = lex::lex(name, text)?;
    let variables = vec!["$".to_owned()];
    let mut parser =
        Parser { name, tokens: &tokens, at: 0, depth: 0, loops: 0, trees: Trees::new(), functions, variables };
    let (nodes, end) = parser.block()?;
    if !matches!(end, Stop::Text) {
        return Err(parser.error("`end` or `else` without a beginning"));
    }
    parser.add(name.to_owned(), nodes)?;
    Ok(parser.trees)
}

impl Parser<'_> {
    fn line(&self) -> usize {
        self.tokens.get(self.at).or_else(|| self.tokens.last()).map_or(1, |placed| placed.line)
    }

    fn error(&self, message: impl Into<String>) -> Error {
        let (template, message) = (self.name.to_owned(), message.into());
        Error { template, line: self.line(), message, kind: ErrorKind::Syntax }
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|placed| &placed.token)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn spaces(&mut self) {
        while self.peek() == Some(&Token::Space) {
            self.at += 1;
        }
    }

    fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_NESTING { Err(self.error(format!("more than {MAX_NESTING} levels"))) } else { Ok(()) }
    }

    fn add(&mut self, name: String, nodes: Block) -> Result<(), Error> {
        let blank = |nodes: &Block| {
            nodes.iter().all(|node| matches!(&node.kind, NodeKind::Text(text) if text.trim().is_empty()))
        };
        match self.trees.get(&name) {
            Some(old) if !blank(&old.nodes) && !blank(&nodes) => {
                return Err(self.error(format!("template {name:?} is defined twice")));
            }
            // As in Go, an empty definition replaces none that has content.
            Some(old) if !blank(&old.nodes) => return Ok(()),
            _ => {}
        }
        self.trees.insert(name, Tree { origin: Arc::from(self.name), nodes: Arc::new(nodes) });
        Ok(())
    }

    /// Nodes up to `end`, `else` or the end of the text. After `else`, the rest of that action is not read yet.
    fn block(&mut self) -> Result<(Block, Stop), Error> {
        self.enter()?;
        let known = self.variables.len();
        let mut nodes = Vec::new();
        let end = loop {
            let line = self.line();
            match self.next() {
                None => break Stop::Text,
                Some(Token::Text(text)) => nodes.push(Node { line, kind: NodeKind::Text(text) }),
                Some(Token::Open) => {
                    self.spaces();
                    let word = match self.peek() {
                        Some(Token::Name(word)) => word.clone(),
                        _ => String::new(),
                    };
                    match word.as_str() {
                        "end" => {
                            self.at += 1;
                            self.close()?;
                            break Stop::Closed;
                        }
                        "else" => {
                            self.at += 1;
                            break Stop::Else;
                        }
                        "define" => self.define()?,
                        _ => {
                            let kind = self.action(&word)?;
                            nodes.push(Node { line, kind });
                        }
                    }
                }
                Some(_) => return Err(self.error("an action is not where it should be")),
            }
        };
        self.variables.truncate(known);
        self.depth -= 1;
        Ok((nodes, end))
    }

    fn close(&mut self) -> Result<(), Error> {
        self.spaces();
        match self.next() {
            Some(Token::Close) => Ok(()),
            _ => {
                self.at -= 1;
                Err(self.error("`}}` is expected"))
            }
        }
    }

    /// The rest of an action that begins with `word` (empty when with none).
    fn action(&mut self, word: &str) -> Result<NodeKind, Error> {
        if matches!(word, "if" | "with" | "range" | "template" | "block" | "break" | "continue") {
            self.at += 1;
        }
        match word {
            "if" | "with" | "range" => self.control(word),
            "template" => {
                let name = self.template_name()?;
                let data = self.optional_pipeline()?;
                self.close()?;
                Ok(NodeKind::Template(name, data))
            }
            "block" => {
                let name = self.template_name()?;
                let data = self.pipeline()?;
                self.close()?;
                let nodes = self.body("block")?;
                self.add(name.clone(), nodes)?;
                Ok(NodeKind::Template(name, Some(data)))
            }
            "break" | "continue" => {
                if self.loops == 0 {
                    return Err(self.error(format!("`{word}` outside of `range`")));
                }
                self.close()?;
                Ok(if word == "break" { NodeKind::Break } else { NodeKind::Continue })
            }
            _ => {
                let pipeline = self.pipeline()?;
                if pipeline.variables.len() > 1 {
                    return Err(self.error("an action declares one variable at most"));
                }
                self.close()?;
                Ok(NodeKind::Action(pipeline))
            }
        }
    }

    fn define(&mut self) -> Result<(), Error> {
        if self.depth > 1 {
            return Err(self.error("`define` inside of another action"));
        }
        self.at += 1;
        let name = self.template_name()?;
        self.close()?;
        let nodes = self.body("define")?;
        self.add(name, nodes)
    }

    /// The body of a definition: it sees no variables but `$` and no loop from around it.
    fn body(&mut self, what: &str) -> Result<Block, Error> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".to_owned()]);
        let loops = std::mem::take(&mut self.loops);
        let (nodes, end) = self.block()?;
        (self.variables, self.loops) = (variables, loops);
        if matches!(end, Stop::Closed) { Ok(nodes) } else { Err(self.error(format!("`{what}` has no `end`"))) }
    }

    fn template_name(&mut self) -> Result<String, Error> {
        self.spaces();
        match self.next() {
            Some(Token::Constant(Json::String(name))) => Ok(name),
            _ => Err(self.error("the name of a template is expected, as a text")),
        }
    }

    fn control(&mut self, word: &str) -> Result<NodeKind, Error> {
        let known = self.variables.len();
        let pipeline = self.pipeline()?;
        if pipeline.variables.len() == 2 && word != "range" {
            return Err(self.error(format!("`{word}` declares one variable at most")));
        }
        self.close()?;
        let loops = usize::from(word == "range");
        self.loops += loops;
        let (nodes, end) = self.block()?;
        self.loops -= loops;
        let otherwise = match end {
            Stop::Closed => Vec::new(),
            Stop::Else => self.otherwise(word)?,
            Stop::Text => return Err(self.error(format!("`{word}` has no `end`"))),
        };
        self.variables.truncate(known);
        Ok(match word {
            "if" => NodeKind::If(pipeline, nodes, otherwise),
            "with" => NodeKind::With(pipeline, nodes, otherwise),
            _ => NodeKind::Range(pipeline, nodes, otherwise),
        })
    }

    /// What follows `else`: another `if` or `with`, or nodes and `end`.
    fn otherwise(&mut self, word: &str) -> Result<Block, Error> {
        self.spaces();
        let line = self.line();
        if let Some(Token::Name(next)) = self.peek().cloned() {
            if next != word || next == "range" {
                return Err(self.error(format!("`else {next}` after `{word}`")));
            }
            self.at += 1;
            self.enter()?;
            let kind = self.control(&next)?;
            self.depth -= 1;
            return Ok(vec![Node { line, kind }]);
        }
        self.close()?;
        match self.block()? {
            (nodes, Stop::Closed) => Ok(nodes),
            _ => Err(self.error("`else` has no `end`")),
        }
    }

    fn optional_pipeline(&mut self) -> Result<Option<Pipeline>, Error> {
        self.spaces();
        if self.peek() == Some(&Token::Close) { Ok(None) } else { self.pipeline().map(Some) }
    }

    fn pipeline(&mut self) -> Result<Pipeline, Error> {
        self.spaces();
        let line = self.line();
        let (variables, assigns) = self.declaration()?;
        let mut commands = Vec::new();
        loop {
            self.spaces();
            commands.push(self.command(commands.is_empty())?);
            self.spaces();
            if self.peek() != Some(&Token::Pipe) {
                break;
            }
            self.at += 1;
        }
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline { line, variables, assigns, commands })
    }

    /// `$a :=`, `$a, $b :=` or `$a =` if there is one.
    fn declaration(&mut self) -> Result<(Vec<String>, bool), Error> {
        let start = self.at;
        let mut variables = Vec::new();
        while let Some(Token::Variable(name)) = self.peek().cloned() {
            self.at += 1;
            variables.push(name);
            self.spaces();
            match self.peek() {
                Some(Token::Comma) if variables.len() == 1 => {
                    self.at += 1;
                    self.spaces();
                }
                Some(token @ (Token::Declare | Token::Assign)) => {
                    let assigns = *token == Token::Assign;
                    if let Some(unknown) = variables.iter().find(|name| assigns && !self.variables.contains(name)) {
                        return Err(self.error(format!("there is no variable {unknown}")));
                    }
                    self.at += 1;
                    return Ok((variables, assigns));
                }
                _ => break,
            }
        }
        self.at = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self, first: bool) -> Result<Command, Error> {
        let mut words = Vec::new();
        loop {
            self.spaces();
            match self.peek() {
                Some(Token::Close | Token::Pipe | Token::RightParen) | None => break,
                Some(_) => words.push(self.word()?),
            }
            if !matches!(self.peek(), Some(Token::Space | Token::Close | Token::Pipe | Token::RightParen) | None) {
                return Err(self.error("a blank is missing between two words"));
            }
        }
        match words.first() {
            None => Err(self.error("a command is missing")),
            Some(Word { operand: Operand::Nil, .. }) => Err(self.error("`nil` is no command")),
            Some(word)
                if !first && matches!(word.operand, Operand::Constant(_) | Operand::Dot) && word.fields.is_empty() =>
            {
                Err(self.error("a value that takes no argument follows `|`"))
            }
            Some(_) => Ok(Command { words }),
        }
    }

    fn word(&mut self) -> Result<Word, Error> {
        let mut fields = Vec::new();
        let operand = match self.next() {
            Some(Token::Dot) => Operand::Dot,
            Some(Token::Field(name)) => {
                fields.push(name);
                Operand::Dot
            }
            Some(Token::Variable(name)) => {
                if !self.variables.contains(&name) {
                    return Err(self.error(format!("there is no variable {name}")));
                }
                Operand::Variable(name)
            }
            Some(Token::Constant(value)) => Operand::Constant(value),
            Some(Token::Name(name)) => self.name_word(name)?,
            Some(Token::LeftParen) => {
                self.enter()?;
                let pipeline = self.pipeline()?;
                self.spaces();
                if self.next() != Some(Token::RightParen) {
                    return Err(self.error("`)` is missing"));
                }
                self.depth -= 1;
                Operand::Group(Box::new(pipeline))
            }
            _ => return Err(self.error("a value or function is expected")),
        };
        while let Some(Token::Field(name)) = self.peek().cloned() {
            if matches!(operand, Operand::Constant(_) | Operand::Nil) {
                return Err(self.error("a constant has no fields"));
            }
            self.at += 1;
            fields.push(name);
        }
        Ok(Word { operand, fields })
    }

    fn name_word(&self, name: String) -> Result<Operand, Error> {
        match name.as_str() {
            "true" => Ok(Operand::Constant(Json::Bool(true))),
            "false" => Ok(Operand::Constant(Json::Bool(false))),
            "nil" => Ok(Operand::Nil),
            _ if KEYWORDS.contains(&name.as_str()) => Err(self.error(format!("`{name}` is not expected here"))),
            _ if (self.functions)(&name) => Ok(Operand::Function(name)),
            _ => Err(self.error(format!("there is no function `{name}`"))),
        }
    }
}
