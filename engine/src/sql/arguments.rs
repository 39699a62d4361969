//! What is wrong with a call? How many arguments the function takes, and which one is of a type that it does not, found by asking DataFusion
//! about the call with other arguments rather than by reading its message.

use datafusion::{
    error::DataFusionError,
    sql::sqlparser::ast::{Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Spanned},
};
use weir_pipelines::Diagnostic;

use super::{
    message,
    parts::{Part, null, parts},
    scope::{Judge, Rule, Scope, normal},
    words::{Words, sql_name},
};

/// The most arguments that are tried.
const ARGUMENTS_MAX: usize = 8;
/// The types that are tried in the place of an argument.
const TYPES: [&str; 8] = ["boolean", "bigint", "double", "text", "date", "timestamp", "interval", "bytea"];
/// How many types a help line lists.
const TYPES_LISTED_MAX: usize = 4;

/// Says what is wrong with a call whose arguments are right by themselves.
pub fn wrong(words: &Words<'_>, expr: &Expr, error: &DataFusionError, scope: &Scope, judge: &Judge<'_>) -> Diagnostic {
    let places = words.places;
    let name = match expr {
        Expr::Function(function) => function.name.0.last().and_then(|part| part.as_ident()).map(normal).unwrap_or_default(),
        expr => places.call_name(expr).unwrap_or_default(),
    };
    if let Expr::Function(function) = expr {
        if !judge.names.is_function(&name) {
            return words.unknown_function(function.name.span(), &name, judge.names);
        }
        let state = judge.names.state;
        let windows_only = state.window_functions().contains_key(&name)
            && !state.scalar_functions().contains_key(&name)
            && !state.aggregate_functions().contains_key(&name);
        if windows_only && function.over.is_none() {
            return words
                .say("missing-over", format!("\"{name}\" is a window function, and needs \"over\""), places.of(expr), "over which rows?")
                .help(format!("write {name}(…) over (partition by … order by …)"));
        }
    }
    let holds = |call: &Expr| judge.typed(call, scope, Rule::Any).is_ok();
    let given = arguments(expr);
    let syntax = judge.names.syntax(&name).map(|syntax| format!("it is written {syntax}"));
    let helped = |found: Diagnostic| match &syntax {
        Some(syntax) => found.help(syntax.clone()),
        None => found,
    };
    if let Expr::Function(_) = expr {
        let taken: Vec<usize> = (0..=ARGUMENTS_MAX).filter(|count| holds(&with_count(expr, *count))).collect();
        if !taken.is_empty() && !taken.contains(&given.len()) {
            let message = format!("\"{name}\" takes {}, not {}", counts(&taken), given.len());
            return helped(words.say("wrong-argument", message, places.of(expr), many(given.len())));
        }
    }
    let kinds: Vec<String> = given
        .iter()
        .map(|argument| judge.typed(argument, scope, Rule::Any).map_or_else(|_| "?".to_owned(), |(_, kind)| sql_name(&kind)))
        .collect();
    let listed = match kinds.as_slice() {
        [one] => one.clone(),
        several => format!("({})", several.join(", ")),
    };
    let message_of = match kinds.is_empty() || kinds.iter().any(|kind| kind == "?") {
        true => format!("\"{name}\" cannot be called like this"),
        false => format!("\"{name}\" does not take {listed}"),
    };
    // Those that do not fit whatever the others are, or else the one without which the call holds.
    let nulls = (0..given.len()).fold(expr.clone(), |call, at| with_argument(&call, at, &null()));
    let mut culprits: Vec<usize> = Vec::new();
    if holds(&nulls) {
        culprits.extend((0..given.len()).filter(|at| !holds(&with_argument(&nulls, *at, &given[*at]))));
    }
    if culprits.is_empty() {
        culprits.extend((0..given.len()).find(|at| holds(&with_argument(expr, *at, &null()))));
    }
    if let Some((first, others)) = culprits.split_first() {
        let fits = |kind: &&str| cast_null(kind).is_some_and(|value| holds(&with_argument(&nulls, *first, &value)));
        let fitting: Vec<&str> = TYPES.into_iter().filter(fits).collect();
        let mut found = words.say("wrong-argument", message_of, places.of(&given[*first]), format!("this is {}", kinds[*first]));
        for other in others {
            found = words.also(found, places.of(&given[*other]), format!("this is {}", kinds[*other]));
        }
        if !fitting.is_empty() && fitting.len() <= TYPES_LISTED_MAX {
            let of = if given.len() == 1 { "it takes".to_owned() } else { format!("as argument {} it takes", first + 1) };
            found = found.help(format!("{of} {}", fitting.join(", ")));
        }
        return helped(found);
    }
    let told = message(error);
    let useful = !given.is_empty() && kinds.iter().all(|kind| kind != "?") || told.to_lowercase().contains("internal error");
    match useful {
        true => helped(words.say("wrong-argument", message_of, places.of(expr), "")),
        false => helped(words.say("wrong-argument", format!("\"{name}\" cannot be called like this: {told}"), places.of(expr), "")),
    }
}

/// A call's arguments.
fn arguments(expr: &Expr) -> Vec<Expr> {
    if let Expr::Function(function) = expr {
        let FunctionArguments::List(list) = &function.args else { return vec![] };
        let value = |argument: &FunctionArg| match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
            | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }
            | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(expr), .. } => expr.clone(),
            _ => null(),
        };
        return list.args.iter().map(value).collect();
    }
    let mut found = Vec::new();
    parts(&mut expr.clone(), &mut |part| {
        if let Part::Expr(part) = part {
            found.push(part.clone());
        }
    });
    found
}

/// The call with so many nulls as arguments.
fn with_count(expr: &Expr, count: usize) -> Expr {
    let mut call = expr.clone();
    if let Expr::Function(function) = &mut call
        && let FunctionArguments::List(list) = &mut function.args
    {
        list.args = (0..count).map(|_| FunctionArg::Unnamed(FunctionArgExpr::Expr(null()))).collect();
    }
    call
}

/// The call with another value in the place of one argument.
fn with_argument(expr: &Expr, at: usize, value: &Expr) -> Expr {
    let mut call = expr.clone();
    if let Expr::Function(function) = &mut call {
        if let FunctionArguments::List(list) = &mut function.args
            && let Some(argument) = list.args.get_mut(at)
        {
            *argument = FunctionArg::Unnamed(FunctionArgExpr::Expr(value.clone()));
        }
        return call;
    }
    let mut seen = 0;
    parts(&mut call, &mut |part| {
        if let Part::Expr(part) = part {
            if seen == at {
                *part = value.clone();
            }
            seen += 1;
        }
    });
    call
}

fn cast_null(kind: &str) -> Option<Expr> {
    use datafusion::sql::sqlparser::{dialect::GenericDialect, parser::Parser};
    Parser::new(&GenericDialect {}).try_with_sql(&format!("cast(null as {kind})")).and_then(|mut parser| parser.parse_expr()).ok()
}

fn many(count: usize) -> String {
    if count == 1 { "1 argument".to_owned() } else { format!("{count} arguments") }
}

/// `1 argument`, `2 or 3 arguments`, `at least 2 arguments`.
fn counts(taken: &[usize]) -> String {
    match taken {
        [one] => many(*one),
        [first, .., last] if *last == ARGUMENTS_MAX && last - first + 1 == taken.len() => format!("at least {}", many(*first)),
        [most @ .., last] => {
            format!("{} or {} arguments", most.iter().map(usize::to_string).collect::<Vec<_>>().join(", "), last)
        }
        [] => many(0),
    }
}
