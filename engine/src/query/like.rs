//! `like … escape '/'`: DataFusion reads it, and has only the backslash when it compares. So the pattern is written with a backslash.

use std::ops::ControlFlow;

use datafusion::sql::{
    parser::Statement as Parsed,
    sqlparser::ast::{
        CastKind, CharacterLength, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
        ObjectName, Value, visit_expressions_mut,
    },
};

/// Stands for an escape character that means itself: no text has it, Unicode gives it to nobody.
const ITSELF: char = '\u{10FFFF}';

/// Writes the patterns of a statement with backslashes. One whose escape is no single character is DataFusion's to refuse.
pub(super) fn escaped(parsed: &mut Parsed) {
    let statement = match parsed {
        Parsed::Explain(explain) => explain.statement.as_mut(),
        other => other,
    };
    let Parsed::Statement(statement) = statement else { return };
    let _ = visit_expressions_mut(statement.as_mut(), |expr| {
        if let Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } = expr
            && let Some(Value::SingleQuotedString(escape)) = escape_char.as_ref().map(|escape| &escape.value)
            && let [escape] = escape.chars().collect::<Vec<_>>()[..]
        {
            *escape_char = None;
            if escape != '\\' {
                let written = written(pattern, escape);
                **pattern = written;
            }
        }
        ControlFlow::<()>::Continue(())
    });
}

fn written(pattern: &Expr, escape: char) -> Expr {
    if let Expr::Value(value) = pattern
        && let Value::SingleQuotedString(text) = &value.value
    {
        return quoted(&literal(text, escape));
    }
    let cast = Expr::Cast {
        kind: CastKind::Cast,
        expr: Box::new(pattern.clone()),
        data_type: DataType::Varchar(None::<CharacterLength>),
        array: false,
        format: None,
    };
    let steps = [
        ("\\".to_owned(), "\\\\".to_owned()),
        (format!("{escape}{escape}"), ITSELF.to_string()),
        (escape.to_string(), "\\".to_owned()),
        (ITSELF.to_string(), format!("\\{escape}")),
    ];
    steps.iter().fold(cast, |text, (from, to)| replaced(text, from, to))
}

fn literal(text: &str, escape: char) -> String {
    let mut written = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == escape => {
                written.push('\\');
                written.extend(chars.next());
            }
            '\\' => written.push_str("\\\\"),
            c => written.push(c),
        }
    }
    written
}

fn quoted(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).into())
}

fn replaced(text: Expr, from: &str, to: &str) -> Expr {
    let args = [text, quoted(from), quoted(to)].map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).to_vec();
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new("replace")]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: vec![] }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

#[cfg(test)]
mod tests {
    use datafusion::{arrow::util::display::array_value_to_string, prelude::SessionContext};

    use super::*;

    #[tokio::test]
    async fn an_escape_means_what_it_means_in_postgres() {
        let context = SessionContext::new();
        for (condition, holds) in [
            ("'a_b' like 'a/_b' escape '/'", true),
            ("'axb' like 'a/_b' escape '/'", false),
            ("'axb' not like 'a/_b' escape '/'", true),
            ("'AxB' ilike 'a_b' escape '/'", true),
            ("'a/b' like 'a//b' escape '/'", true),
            ("'a/_b' like 'a///_b' escape '/'", true),
            ("'a/xb' like 'a///_b' escape '/'", false),
            (r"'a\b' like 'a\b' escape '/'", true),
            ("'50%' like '50%%' escape '%'", true),
            ("'50x' like '50%%' escape '%'", false),
            (r"'a_b' like 'a\_b' escape '\'", true),
            ("p like p || '%' escape '/'", true),
            ("'axb' like replace(p, '//', '/_') escape '/'", false),
            ("'a_b' like replace(p, '//', '/_') escape '/'", true),
            (r"'a/b' like p escape '/'", true),
            (r"'a\b' like p escape '/'", false),
        ] {
            let p = if condition.starts_with("p like") { "ab" } else { "a//b" };
            let dialect = context.state().config().options().sql_parser.dialect;
            let sql = format!("select {condition} from (values ('{p}')) as t (p)");
            let mut statement = context.state().sql_to_statement(&sql, &dialect).expect(condition);
            escaped(&mut statement);
            let plan = context.state().statement_to_plan(statement).await.expect(condition);
            let rows = context.execute_logical_plan(plan).await.expect(condition).collect().await.expect(condition);
            assert_eq!(array_value_to_string(rows[0].column(0), 0).expect("shown"), holds.to_string(), "{condition}");
        }
    }
}
