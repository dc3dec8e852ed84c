-- Two more limits that are learned of a node.

ALTER TABLE dalp_indexed.node ADD COLUMN max_list int8, ADD COLUMN max_parallel int8;
COMMENT ON COLUMN dalp_indexed.node.max_list IS 'Addresses or topics that it takes in one eth_getLogs; null while no limit was met.';
COMMENT ON COLUMN dalp_indexed.node.max_parallel IS 'Requests that it takes at once; null while it did not throttle.';
