//! Every setting: the sections in the order of the example and the reference.

use super::chain::ChainDraft;
use super::contract::{ContractDraft, FactoryDraft};
use super::database::DatabaseDraft;
use super::http::HttpDraft;
use super::partitions::PartitionsDraft;
use super::roles::RolesDraft;
use super::setting::Sections;
use super::tables::{INDEXES, TableDraft};

pub(super) const SECTIONS: Sections = Sections(&[
    DatabaseDraft::SETTINGS,
    RolesDraft::SETTINGS,
    ChainDraft::SETTINGS,
    ContractDraft::SETTINGS,
    FactoryDraft::SETTINGS,
    PartitionsDraft::SETTINGS,
    TableDraft::SETTINGS,
    &[INDEXES],
    HttpDraft::SETTINGS,
]);
