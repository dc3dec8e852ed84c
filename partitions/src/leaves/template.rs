//! The properties of a new leaf beside its columns: the table's tablespace, and the settings of the newest leaf.

use tokio_postgres::{
    Row, Transaction,
    types::{ToSql, Type},
};

use crate::pure::names::quoted;

/// Read inside the transaction that makes leaves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Template {
    tablespace: Option<String>,
    /// Names and values, of the table and (`toast.`) of its TOAST table.
    options: Vec<(String, String)>,
    /// `f` for FULL, `n` for NOTHING, `i` for an index.
    identity: String,
    /// The parent's index of which the identity's index is a part.
    index: Option<u32>,
    /// A role and a right of it; the role is empty for PUBLIC.
    grants: Vec<(String, String, bool)>,
}

/// $1 parent, $2 the newest leaf or null.
const TEMPLATE: &str = "
    SELECT spcname::text,
           ARRAY(SELECT unnest(leaf.reloptions)) || ARRAY(SELECT 'toast.' || unnest(toast.reloptions)),
           COALESCE(leaf.relreplident, parent.relreplident)::text,
           (SELECT inhparent FROM pg_catalog.pg_index JOIN pg_catalog.pg_inherits ON inhrelid = indexrelid
            WHERE indrelid = leaf.oid AND indisreplident),
           ARRAY(SELECT COALESCE(rolname::text, '') FROM grants ORDER BY place),
           ARRAY(SELECT privilege_type FROM grants ORDER BY place),
           ARRAY(SELECT is_grantable FROM grants ORDER BY place)
    FROM pg_catalog.pg_class AS parent
    LEFT JOIN pg_catalog.pg_tablespace AS space ON space.oid = parent.reltablespace
    LEFT JOIN pg_catalog.pg_class AS leaf ON leaf.oid = to_regclass($2)
    LEFT JOIN pg_catalog.pg_class AS toast ON toast.oid = leaf.reltoastrelid
    WHERE parent.oid = to_regclass($1)";

const GRANTS: &str = "
    WITH grants AS (
        SELECT rolname, privilege_type, is_grantable, row_number() OVER (ORDER BY rolname, privilege_type) AS place
        FROM pg_catalog.pg_class AS c, aclexplode(c.relacl) LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = grantee
        WHERE c.oid = to_regclass($2) AND grantee <> c.relowner
    )";

impl Template {
    pub async fn read(
        transaction: &Transaction<'_>,
        parent: &str,
        newest: Option<&str>,
    ) -> Result<Self, tokio_postgres::Error> {
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&parent, Type::TEXT), (&newest, Type::TEXT)];
        let row = transaction.query_typed_opt(&format!("{GRANTS} {TEMPLATE}"), &parameters).await?;
        Ok(row.as_ref().map(template).unwrap_or_default())
    }

    /// The clauses behind the columns of a leaf, or of a sub-parent, which has no rows of its own.
    pub fn clauses(&self, has_rows: bool) -> String {
        let options: Vec<String> =
            self.options.iter().map(|(name, value)| format!("{name} = '{}'", value.replace('\'', "''"))).collect();
        let options = match options.is_empty() || !has_rows {
            true => String::new(),
            false => format!(" WITH ({})", options.join(", ")),
        };
        let space = self.tablespace.as_ref().map(|space| format!(" TABLESPACE {}", quoted(space)));
        options + &space.unwrap_or_default()
    }

    /// The statements for a leaf before other sessions see it. `name` is quoted.
    pub fn statements(&self, name: &str) -> Vec<String> {
        let identity = match self.identity.as_str() {
            "f" => Some("FULL"),
            "n" => Some("NOTHING"),
            _ => None,
        };
        let identity = identity.map(|identity| format!("ALTER TABLE {name} REPLICA IDENTITY {identity}"));
        let grants = self.grants.iter().map(|(role, right, may_grant)| {
            let role = if role.is_empty() { "PUBLIC".to_owned() } else { quoted(role) };
            format!("GRANT {right} ON {name} TO {role}{}", if *may_grant { " WITH GRANT OPTION" } else { "" })
        });
        identity.into_iter().chain(grants).collect()
    }

    /// The statements for attached leaves, after their indexes exist.
    pub async fn identify(
        &self,
        transaction: &Transaction<'_>,
        leaves: &[String],
    ) -> Result<(), tokio_postgres::Error> {
        let Some(index) = self.index.filter(|_| self.identity == "i") else { return Ok(()) };
        let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&index, Type::OID), (&leaves, Type::TEXT_ARRAY)];
        for row in transaction.query_typed(INDEXES, &parameters).await? {
            let (leaf, index): (String, String) = (row.get(0), row.get(1));
            let identity = format!("ALTER TABLE {leaf} REPLICA IDENTITY USING INDEX {}", quoted(&index));
            transaction.batch_execute(&identity).await?;
        }
        Ok(())
    }
}

/// $1 an index of a parent, $2 leaves.
const INDEXES: &str = "
    SELECT leaf, own.relname::text FROM unnest($2) AS leaf
    JOIN pg_catalog.pg_index ON indrelid = to_regclass(leaf) JOIN pg_catalog.pg_class AS own ON own.oid = indexrelid
    JOIN pg_catalog.pg_inherits ON inhrelid = indexrelid AND inhparent = $1";

fn template(row: &Row) -> Template {
    let options: Vec<String> = row.get(1);
    let option = |option: String| option.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (roles, rights, may): (Vec<String>, Vec<String>, Vec<bool>) = (row.get(4), row.get(5), row.get(6));
    Template {
        tablespace: row.get(0),
        options: options.into_iter().filter_map(option).collect(),
        identity: row.get(2),
        index: row.get(3),
        grants: roles.into_iter().zip(rights).zip(may).map(|((role, right), may)| (role, right, may)).collect(),
    }
}
