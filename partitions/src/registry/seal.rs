//! The seal of a leaf: triggers that refuse every change of its rows, and the mark that identifies a seal.

use crate::Table;

pub(crate) fn seal_statements(table: &Table, leaf: &str) -> Vec<String> {
    let function = table.registered("registry.refuse_sealed()");
    let mut statements = Vec::new();
    for (trigger, events, each) in
        [("dalp_seal_rows", "INSERT OR UPDATE OR DELETE", "ROW"), ("dalp_seal_truncate", "TRUNCATE", "STATEMENT")]
    {
        statements.push(format!(
            "CREATE OR REPLACE TRIGGER {trigger} BEFORE {events} ON {leaf} FOR EACH {each} EXECUTE FUNCTION {function}"
        ));
        statements.push(format!("ALTER TABLE {leaf} ENABLE ALWAYS TRIGGER {trigger}"));
    }
    statements
}

pub(crate) fn unseal_statements(leaf: &str) -> Vec<String> {
    ["dalp_seal_rows", "dalp_seal_truncate"].map(|name| format!("DROP TRIGGER IF EXISTS {name} ON {leaf}")).to_vec()
}

/// The mark of a seal, of the row `e` of the registry.
pub(crate) const MARK: &str = "(SELECT md5(string_agg(t.oid::text || ':' || t.xmin::text || ':' || t.tgenabled::text, ',' ORDER BY t.oid) \
                       || ':' || c.relfilenode::text) \
                     FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_trigger AS t ON t.tgrelid = c.oid \
                       AND starts_with(t.tgname::text, 'dalp_seal') WHERE c.oid = e.relid GROUP BY c.relfilenode)";
