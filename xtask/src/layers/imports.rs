//! What one source file of a crate takes from the rest of its crate.

use proc_macro2::{Delimiter, Span, TokenStream, TokenTree};
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, Token, UseTree};

/// A path of this crate, written out from its root; `*` at the end for a glob.
#[derive(Debug, PartialEq, Eq)]
pub struct Import {
    pub line: usize,
    pub path: Vec<String>,
}

/// `mod name;`
#[derive(Debug, PartialEq, Eq)]
pub struct Declared {
    pub path: Vec<String>,
    /// The value of `#[path = "…"]`.
    pub file: Option<String>,
}

/// What a file says of its surroundings. Items under `#[cfg(test)]` are left out.
#[derive(Debug, Default)]
pub struct Imports {
    pub imports: Vec<Import>,
    pub modules: Vec<Declared>,
    /// Macros that `#[macro_export]` puts into the crate's root.
    pub macros: Vec<String>,
}

/// Reads the file of `module`, a path from the crate's root.
pub fn read(source: &str, module: &[String]) -> syn::Result<Imports> {
    let file = syn::parse_file(source)?;
    let mut reader = Reader { module: module.to_vec(), found: Imports::default() };
    reader.visit_file(&file);
    Ok(reader.found)
}

/// The names that the root file brings in with `use`, and where from: relative to the root, or the
/// name of another crate first.
pub fn brought_in(source: &str) -> syn::Result<Vec<(String, Vec<String>)>> {
    let mut names = Vec::new();
    for item in syn::parse_file(source)?.items {
        if let Item::Use(item) = item
            && !only_in_tests(&item.attrs)
        {
            for leaf in leaves(&item.tree) {
                let path = absolute(&leaf.path, &[]).unwrap_or(leaf.path);
                names.push((leaf.name, path));
            }
        }
    }
    Ok(names)
}

struct Reader {
    module: Vec<String>,
    found: Imports,
}

impl Reader {
    fn path(&mut self, path: &[String], span: Span) {
        if let Some(path) = absolute(path, &self.module) {
            self.found.imports.push(Import { line: span.start().line, path });
        }
    }

    /// Finds `crate::…` and `super::…` in a macro's tokens, which syn does not parse.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut tokens = tokens.into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(word) if word == "crate" || word == "super" => {
                    let mut path = vec![word.to_string()];
                    while tokens.next_if(is_colon).is_some() && tokens.next_if(is_colon).is_some() {
                        match tokens.next() {
                            Some(TokenTree::Ident(part)) => path.push(part.to_string()),
                            Some(TokenTree::Group(group))
                                if group.delimiter() == Delimiter::Brace =>
                            {
                                self.braces(&path, group.stream());
                                path.clear();
                            }
                            Some(TokenTree::Punct(star)) if star.as_char() == '*' => {
                                path.push("*".to_owned());
                            }
                            _ => break,
                        }
                    }
                    // A lone `crate` is a visibility.
                    if path.len() > 1 {
                        self.path(&path, word.span());
                    }
                }
                _ => {}
            }
        }
    }

    /// `{a::b, c}` after a path in a macro: the first name of each part tells where it leads.
    fn braces(&mut self, prefix: &[String], tokens: TokenStream) {
        let mut begins = true;
        for token in tokens {
            match token {
                TokenTree::Ident(part) if begins => {
                    let path: Vec<String> =
                        prefix.iter().cloned().chain([part.to_string()]).collect();
                    self.path(&path, part.span());
                    begins = false;
                }
                TokenTree::Punct(comma) if comma.as_char() == ',' => begins = true,
                _ => {}
            }
        }
    }
}

fn is_colon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':')
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        if !only_in_tests(attributes(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        if item.content.is_some() {
            visit::visit_item_mod(self, item);
        } else {
            self.found
                .modules
                .push(Declared { path: self.module.clone(), file: path_attribute(&item.attrs) });
        }
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for leaf in leaves(&item.tree) {
            self.path(&leaf.path, leaf.span);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none() && path.segments.len() > 1 {
            let segments: Vec<String> =
                path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.path(&segments, path.segments[0].ident.span());
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        visit::visit_macro(self, item);
        self.tokens(item.tokens.clone());
    }

    fn visit_item_macro(&mut self, item: &'ast syn::ItemMacro) {
        if let Some(name) = &item.ident
            && item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export"))
        {
            self.found.macros.push(name.to_string());
        }
        visit::visit_item_macro(self, item);
    }
}

/// One name that a `use` brings in.
struct Leaf {
    path: Vec<String>,
    name: String,
    span: Span,
}

fn leaves(tree: &UseTree) -> Vec<Leaf> {
    fn walk(tree: &UseTree, prefix: &[String], found: &mut Vec<Leaf>) {
        let with = |name: String| [prefix, &[name]].concat();
        match tree {
            UseTree::Path(part) => walk(&part.tree, &with(part.ident.to_string()), found),
            UseTree::Group(group) => group.items.iter().for_each(|t| walk(t, prefix, found)),
            UseTree::Glob(star) => found.push(Leaf {
                path: with("*".to_owned()),
                name: "*".to_owned(),
                span: star.star_token.spans[0],
            }),
            UseTree::Name(name) => {
                let path = named(prefix, name.ident.to_string());
                let name_in = path.last().cloned().unwrap_or_default();
                found.push(Leaf { path, name: name_in, span: name.ident.span() });
            }
            UseTree::Rename(rename) => found.push(Leaf {
                path: named(prefix, rename.ident.to_string()),
                name: rename.rename.to_string(),
                span: rename.ident.span(),
            }),
        }
    }
    /// `a::{self}` is `a`.
    fn named(prefix: &[String], name: String) -> Vec<String> {
        if name == "self" && !prefix.is_empty() {
            prefix.to_vec()
        } else {
            [prefix, &[name]].concat()
        }
    }
    let mut found = Vec::new();
    walk(tree, &[], &mut found);
    found
}

/// A path that begins with `crate`, `self` or `super`, from the crate's root.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let first = path.first()?.as_str();
    let mut rest = &path[1..];
    let mut base = match first {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len().saturating_sub(1)].to_vec(),
        _ => return None,
    };
    while let Some((_, after)) = rest.split_first().filter(|(part, _)| *part == "super") {
        base.pop();
        rest = after;
    }
    base.extend_from_slice(rest);
    Some(base)
}

fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(file), .. }) => Some(file.value()),
            _ => None,
        },
        _ => None,
    })
}

/// Whether `#[cfg(test)]`, or `#[cfg(all(test, …))]`, keeps the item out of what is shipped.
fn only_in_tests(attributes: &[Attribute]) -> bool {
    fn needs_test(meta: &Meta) -> bool {
        match meta {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => list
                .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
                .is_ok_and(|parts| parts.iter().any(needs_test)),
            _ => false,
        }
    }
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(i) => &i.attrs,
        Item::Enum(i) => &i.attrs,
        Item::ExternCrate(i) => &i.attrs,
        Item::Fn(i) => &i.attrs,
        Item::Impl(i) => &i.attrs,
        Item::Macro(i) => &i.attrs,
        Item::Mod(i) => &i.attrs,
        Item::Static(i) => &i.attrs,
        Item::Struct(i) => &i.attrs,
        Item::Trait(i) => &i.attrs,
        Item::Type(i) => &i.attrs,
        Item::Union(i) => &i.attrs,
        Item::Use(i) => &i.attrs,
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str, module: &[&str]) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|&part| part.to_owned()).collect();
        let found = read(source, &module).unwrap();
        found.imports.iter().map(|import| import.path.join("::")).collect()
    }

    #[test]
    fn use_trees_are_written_out() {
        let source = "use crate::{Order, page::{self, Memmap as M}, zone::*}; use core::fmt;";
        let expected = ["Order", "page", "page::Memmap", "zone::*"];
        assert_eq!(paths(source, &["buddy"]), expected);
    }

    #[test]
    fn super_and_self_lead_from_where_they_stand() {
        let source = "
use super::free::Area;
use super::super::mm::Mm;
mod inner { use super::super::super::zone::Zone; use self::near::X; }
";
        assert_eq!(
            paths(source, &["buddy", "list"]),
            ["buddy::free::Area", "mm::Mm", "zone::Zone", "buddy::list::inner::near::X"]
        );
    }

    #[test]
    fn paths_in_signatures_bodies_patterns_and_macros_count() {
        let source = "
fn f(a: &crate::mm::Mm) -> Vec<crate::page::Page> {
    match a { crate::zone::Kind::Dma => crate::slab::get::<crate::pcp::Set>() }
    assert_eq!(crate::report::lines(x), [1]);
}
macro_rules! m { () => { $crate::vmalloc::area() } }
pub(crate) struct S;
pub(in crate::buddy) struct T;
crate::stack::define!();
m! { use crate::{highmem, percpu::x}; }
";
        assert_eq!(
            paths(source, &["buddy"]),
            [
                "mm::Mm",
                "page::Page",
                "zone::Kind::Dma",
                "slab::get",
                "pcp::Set",
                "report::lines",
                "vmalloc::area",
                "buddy",
                "stack::define",
                "highmem",
                "percpu"
            ]
        );
    }

    #[test]
    fn tests_may_look_anywhere() {
        let source = "
#[cfg(test)] mod tests { use crate::mm::Mm; }
#[cfg(all(test, not(loom)))] mod more;
#[cfg(test)] use crate::report::Text;
#[cfg(not(test))] use crate::zone::Zone;
#[cfg(any(test, loom))] use crate::pcp::Set;
";
        assert_eq!(paths(source, &["buddy"]), ["zone::Zone", "pcp::Set"]);
        assert!(read(source, &[]).unwrap().modules.is_empty());
    }

    #[test]
    fn lines_are_those_of_the_name() {
        let found = read("use crate::{\n    a,\n    b,\n};", &["m".to_owned()]).unwrap();
        let lines: Vec<usize> = found.imports.iter().map(|import| import.line).collect();
        assert_eq!(lines, [2, 3]);
    }

    #[test]
    fn declared_modules_and_exported_macros_are_kept() {
        let source = "mod a { mod b; } #[path = \"x.rs\"] mod c;
            #[macro_export] macro_rules! out { () => {} } macro_rules! own { () => {} }";
        let found = read(source, &["top".to_owned()]).unwrap();
        let declared = |path: &[&str], file: Option<&str>| Declared {
            path: path.iter().map(|&part| part.to_owned()).collect(),
            file: file.map(str::to_owned),
        };
        assert_eq!(
            found.modules,
            [declared(&["top", "a", "b"], None), declared(&["top", "c"], Some("x.rs"))]
        );
        assert_eq!(found.macros, ["out"]);
    }

    #[test]
    fn the_root_file_tells_where_its_names_come_from() {
        let source = "pub use order::{Order, get_order as log}; pub use crate::gfp::Gfp;
            use core::fmt; #[cfg(test)] use std::vec::Vec;";
        let names: Vec<(String, String)> =
            brought_in(source).unwrap().into_iter().map(|(n, p)| (n, p.join("::"))).collect();
        let pair = |name: &str, path: &str| (name.to_owned(), path.to_owned());
        assert_eq!(
            names,
            [
                pair("Order", "order::Order"),
                pair("log", "order::get_order"),
                pair("Gfp", "gfp::Gfp"),
                pair("fmt", "core::fmt")
            ]
        );
    }
}
