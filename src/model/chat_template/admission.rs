//! Which templates are given to the template engine.
//!
//! minijinja limits the nesting of brackets and blocks to 150 levels, the work of a template by
//! fuel, and calls by a recursion limit. It does not limit operators, attributes, filters and
//! `elif`, for each of which it calls itself, nor values that hold themselves, which only a
//! namespace can do. The process would not survive either, so both are refused here, with
//! minijinja's own lexer.

use std::collections::HashSet;

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

/// The most words in one tag, `{{ … }}` or `{% … %}`: nothing in a tag is nested deeper.
const MAX_WORDS: usize = 1000;

/// The most `elif` branches in a template, each of which is nested in the one before.
const MAX_ELIF: usize = 500;

/// Accepts a template whose nesting is limited and whose values cannot hold themselves.
///
/// # Errors
///
/// What is wrong; the caller puts the template's name before it. What is not Jinja is accepted,
/// along with the rest after it: the parser explains it better.
pub fn admit(source: &str, syntax: &SyntaxConfig) -> Result<(), String> {
    let mut tags: Vec<Vec<Token<'_>>> = Vec::new();
    let mut elifs = 0;
    for token in tokenize(source, false, syntax.clone()) {
        let Ok((token, _)) = token else {
            break;
        };
        match (token, tags.last_mut()) {
            (Token::TemplateData(_) | Token::VariableEnd | Token::BlockEnd, _) => {}
            (Token::VariableStart | Token::BlockStart, _) | (_, None) => tags.push(Vec::new()),
            (word, Some(tag)) => {
                if tag.is_empty() && matches!(word, Token::Ident("elif")) {
                    elifs += 1;
                }
                tag.push(word);
                if tag.len() > MAX_WORDS {
                    return Err(format!("one of its tags has more than {MAX_WORDS} words"));
                }
            }
        }
        if elifs > MAX_ELIF {
            return Err(format!("it has more than {MAX_ELIF} `elif` branches"));
        }
    }
    let namespaces: HashSet<&str> = tags.iter().filter_map(|tag| namespace(tag)).collect();
    for tag in &tags {
        check_namespaces(tag, &namespaces)?;
    }
    Ok(())
}

/// The name that a tag gives to a namespace, as in `{% set name = namespace(…) %}`.
fn namespace<'a>(tag: &[Token<'a>]) -> Option<&'a str> {
    match tag {
        [
            Token::Ident("set"),
            Token::Ident(name),
            Token::Assign,
            Token::Ident("namespace"),
            Token::ParenOpen,
            ..,
        ] => Some(name),
        _ => None,
    }
}

/// A namespace is the only value that can be changed, so it could come to hold itself, and walking
/// through it would never end. If it is only created by `set` and only used as `name.attribute`, no
/// value holds it. The templates of models use it in no other way.
fn check_namespaces(tag: &[Token<'_>], namespaces: &HashSet<&str>) -> Result<(), String> {
    for (at, word) in tag.iter().enumerate() {
        let Token::Ident(name) = word else {
            continue;
        };
        let before = at.checked_sub(1).map(|at| &tag[at]);
        let after = tag.get(at + 1);
        if matches!(before, Some(Token::Dot | Token::Pipe)) {
            // An attribute or a filter.
            continue;
        }
        let allowed = match *name {
            "namespace" => at == 3 && namespace(tag).is_some(),
            name if namespaces.contains(name) => match after {
                Some(Token::Dot | Token::BracketOpen | Token::Ident("is")) => true,
                Some(Token::Assign) => at == 1 && matches!(before, Some(Token::Ident("set"))),
                _ => false,
            },
            _ => true,
        };
        if !allowed {
            return Err(format!(
                "`{name}` is used where a namespace could get into another value; \
                 create it by `set name = namespace(…)` and use it as `name.attribute`"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, passes: bool) {
        let syntax = SyntaxConfig::builder().build().unwrap();
        assert_eq!(admit(source, &syntax).is_ok(), passes, "{source}");
    }

    #[test]
    fn a_namespace_cannot_hold_itself() {
        for source in [
            "{% set n = namespace() %}{% set n.x = n %}{{ n }}",
            "{% set n = namespace() %}{% set n.x = [n] %}",
            "{% set n = namespace() %}{% set n.x = {'a': n} %}",
            "{% set n = namespace() %}{% set n.x = (n, 1) %}",
            "{% set n = namespace() %}{% set m = n %}{% set n.x = m %}",
            "{% set n = namespace() %}{% for m in [n] %}{% set n.x = m %}{% endfor %}",
            "{% set n = namespace() %}{% with m = n %}{% set n.x = m %}{% endwith %}",
            "{% set n = namespace() %}{% set n.x = dict(a=n) %}",
            "{% set n = namespace() %}{% set n.x = n|default(1) %}",
            "{% set n = namespace() %}{% set n.x = 1 if 0 else n %}",
            "{% set n = namespace() %}{% set n.x = (n) %}",
            "{% set n = namespace() %}{%- set n.x = n -%}",
            "{% set n=namespace() %}{% raw %}{{{% endraw %}{% set n.x=n %}",
            "{# {% #}{% set n=namespace() %}{% set n.x=n %}",
            "{{ '{#' }}{% set n=namespace() %}{% set n.x=n %}",
            "{% set a, n = 1, namespace() %}{% set n.x = n %}",
            "{% set make = namespace %}{% set n = make() %}{% set n.x = n %}",
            "{% set n = (namespace)() %}{% set n.x = n %}",
            "{% set n = [namespace()] %}{% set n[0].x = n %}",
            "{% set n = 1 or namespace() %}{% set n.x = n %}",
            "{% set n = namespace(**n) %}",
            "{% for n in [namespace()] %}{% set n.x = n %}{% endfor %}",
            "{% set n.x = n %}{% set n = namespace() %}",
        ] {
            check(source, false);
        }
    }

    #[test]
    fn templates_of_models_use_namespaces_like_this() {
        for source in [
            "{%- set ns = namespace(found=false, last=messages|length - 1) %}",
            "{% set ns = namespace() %}{% set ns.found = true %}{% if ns.found %}{{ ns.x }}{% endif %}",
            "{% set ns = namespace(x='') %}{% set ns.x = ns.x + '\\n' ~ ns['x'] %}",
            "{% set ns = namespace(x=[]) %}{% set ns.x = ns.x + [message] %}{{ a.ns }}{{ a|ns }}",
            "{% set ns = namespace(x=1) %}{% if ns is defined and not ns.x %}{% endif %}",
            "{% set ns = namespace() %}{% set ns = namespace(x=1) %}",
            "{% for message in messages %}{{ message['role'] + ': ' + message.content | trim }}{% endfor %}",
            "{{ 'ns = namespace()' }} namespace",
            "{% if a %}{% elif b %}{% else %}{% endif %}",
            "",
        ] {
            check(source, true);
        }
    }
}
