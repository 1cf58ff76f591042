//! A source file, taken apart as far as the rules need it.
//!
//! Two views of one text. `syn` says where things lie: functions, inline modules, what is compiled for tests only. A
//! flat list of tokens says which names are spoken: the same way in plain code and inside of macros, where `syn` sees
//! nothing but tokens. A token belongs to an item when its line lies within the item's lines; rustfmt sees to it that
//! items don't share lines.

use std::ops::RangeInclusive;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Lines, from 1, first and last included.
type Lines = RangeInclusive<usize>;

/// One file.
pub(crate) struct Source {
    /// Relative to the crate, with slashes.
    pub(crate) path: String,
    /// As it stands in the file.
    pub(crate) text: String,
    /// Where it hangs in the tree of modules; empty for a root.
    pub(crate) module: Vec<String>,
    /// All of it, macros included, without comments.
    pub(crate) tokens: Vec<Token>,
    /// Where its items lie.
    pub(crate) layout: Layout,
    /// Compiled for tests only, as a whole: a file behind `#[cfg(test)] mod name;`.
    pub(crate) test_only: bool,
}

impl Source {
    /// Takes `text` apart; `path` says where it hangs.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Source, String> {
        let file = syn::parse_file(text).map_err(|error| format!("{path}: {error}"))?;
        let stream: TokenStream = text.parse().map_err(|error| format!("{path}: {error}"))?;
        let mut tokens = Vec::new();
        flatten(stream, &mut tokens);
        let mut layout = Layout::default();
        layout.visit_file(&file);
        Ok(Source {
            path: path.into(),
            text: text.into(),
            module: module_of(path),
            tokens,
            layout,
            test_only: false,
        })
    }

    /// The part of the house that it belongs to; `None` outside of `src`.
    pub(crate) fn part(&self) -> Option<&str> {
        match self.path.as_str() {
            "src/lib.rs" => Some("lib"),
            "src/main.rs" => Some("main"),
            path if path.starts_with("src/") => self.module.first().map(String::as_str),
            _ => None,
        }
    }

    /// Whether the line is compiled for tests only.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.test_only || self.layout.tests.iter().any(|lines| lines.contains(&line))
    }

    /// The module that the line stands in, inline modules included.
    pub(crate) fn module_at(&self, line: usize) -> Vec<String> {
        let inline = self.layout.modules.iter();
        let around = inline.filter(|(lines, _)| lines.contains(&line));
        let names = around.map(|(_, name)| name.clone());
        self.module.iter().cloned().chain(names).collect()
    }

    /// A complaint about a line of this file.
    pub(crate) fn complain(&self, line: usize, what: impl AsRef<str>) -> String {
        format!("{}:{line}: {}", self.path, what.as_ref())
    }

    /// The text of the token at `at`; empty before the first and after the last.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }
}

/// `src/engine/worker.rs` is `engine::worker`, `src/engine/mod.rs` is `engine`.
fn module_of(path: &str) -> Vec<String> {
    let inner = path.strip_prefix("src/").unwrap_or_default();
    let inner = inner.strip_suffix(".rs").unwrap_or(inner);
    let inner = inner.strip_suffix("/mod").unwrap_or(inner);
    match inner {
        "" | "lib" | "main" => Vec::new(),
        inner => inner.split('/').map(String::from).collect(),
    }
}

/// A token, flat: a group is its opening bracket, its content, its closing bracket.
pub(crate) struct Token {
    /// As it is written; `::` is one token.
    pub(crate) text: String,
    /// From 1.
    pub(crate) line: usize,
    /// A name or a keyword, and no literal that looks like one.
    pub(crate) is_ident: bool,
}

fn flatten(stream: TokenStream, tokens: &mut Vec<Token>) {
    let mut after_colon = false;
    for tree in stream {
        let line = tree.span().start().line;
        let joint = matches!(&tree, TokenTree::Punct(p) if p.as_char() == ':' && p.spacing() == Spacing::Joint);
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = brackets(group.delimiter());
                tokens.push(punct(open, line));
                flatten(group.stream(), tokens);
                tokens.push(punct(close, group.span_close().start().line));
            }
            TokenTree::Punct(p) if p.as_char() == ':' && after_colon => {
                tokens.last_mut().expect("a colon").text.push(':');
            }
            TokenTree::Ident(ident) => tokens.push(Token {
                is_ident: true,
                ..punct(&ident.to_string(), line)
            }),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {
                tokens.push(punct(&tree.to_string(), line));
            }
        }
        after_colon = joint && !after_colon;
    }
}

fn punct(text: &str, line: usize) -> Token {
    Token {
        text: text.into(),
        line,
        is_ident: false,
    }
}

fn brackets(delimiter: Delimiter) -> (&'static str, &'static str) {
    match delimiter {
        Delimiter::Parenthesis => ("(", ")"),
        Delimiter::Brace => ("{", "}"),
        Delimiter::Bracket => ("[", "]"),
        Delimiter::None => ("", ""),
    }
}

/// Where the items of a file lie.
#[derive(Default)]
pub(crate) struct Layout {
    /// Compiled for tests only.
    pub(crate) tests: Vec<Lines>,
    /// Inline modules with their names, outer before inner.
    pub(crate) modules: Vec<(Lines, String)>,
    /// Modules in files of their own: name, line, whether they are compiled for tests only.
    pub(crate) declared: Vec<(String, usize, bool)>,
    /// Functions with their names, methods included, closures not.
    pub(crate) functions: Vec<(Lines, String)>,
}

impl Layout {
    fn function(&mut self, sig: &syn::Signature, end: &impl Spanned) {
        let lines = sig.span().start().line..=end.span().end().line;
        self.functions.push((lines, sig.ident.to_string()));
    }
}

impl<'ast> Visit<'ast> for Layout {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if item_attrs(item).iter().any(is_test_attr) {
            self.tests.push(lines_of(item));
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        match item.content {
            Some(_) => self.modules.push((lines_of(item), name)),
            None => {
                let test = item.attrs.iter().any(is_test_attr);
                let line = item.ident.span().start().line;
                self.declared.push((name, line, test));
            }
        }
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if item.attrs.iter().any(is_test_attr) {
            self.tests.push(lines_of(item));
        }
        self.function(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

fn lines_of(item: &impl Spanned) -> Lines {
    item.span().start().line..=item.span().end().line
}

/// `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, ...))]`, `#[cfg(any(test, fuzzing))]`.
fn is_test_attr(attr: &syn::Attribute) -> bool {
    if attr.path().is_ident("test") {
        return true;
    }
    let Ok(meta) = attr.parse_args::<syn::Meta>() else {
        return false;
    };
    let for_tests = |list: &syn::MetaList| {
        let mut words = list.tokens.clone().into_iter().map(|word| word.to_string());
        match list.path.get_ident().map(ToString::to_string).as_deref() {
            Some("all") => words.any(|word| word == "test"),
            Some("any") => words.all(|word| matches!(word.as_str(), "test" | "fuzzing" | ",")),
            _ => false,
        }
    };
    attr.path().is_ident("cfg")
        && match &meta {
            syn::Meta::Path(path) => path.is_ident("test"),
            syn::Meta::List(list) => for_tests(list),
            syn::Meta::NameValue(_) => false,
        }
}

fn item_attrs(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item;
    match item {
        Item::Const(syn::ItemConst { attrs, .. })
        | Item::Enum(syn::ItemEnum { attrs, .. })
        | Item::ExternCrate(syn::ItemExternCrate { attrs, .. })
        | Item::Fn(syn::ItemFn { attrs, .. })
        | Item::Impl(syn::ItemImpl { attrs, .. })
        | Item::Macro(syn::ItemMacro { attrs, .. })
        | Item::Mod(syn::ItemMod { attrs, .. })
        | Item::Static(syn::ItemStatic { attrs, .. })
        | Item::Struct(syn::ItemStruct { attrs, .. })
        | Item::Trait(syn::ItemTrait { attrs, .. })
        | Item::Type(syn::ItemType { attrs, .. })
        | Item::Use(syn::ItemUse { attrs, .. }) => attrs,
        _ => &[],
    }
}
