-- Secondary indexes leave the tables and stand on the leaves alone, so that a leaf can be loaded without them.
--
-- A table's index is made on each leaf when it is attached. The indexer's partition manager now makes what its configuration
-- names (indexes.logs, indexes.erc20_transfer): at once on leaves near the head, after their load on leaves of history. What this
-- drops, it makes again on each leaf that exists. The BRIN indexes stay: they cost next to nothing.

DROP INDEX dalp_indexed.logs_address_topic0_time;
DROP INDEX dalp_indexed.logs_tx_hash;
DROP INDEX dalp_indexed.erc20_transfer_token_time;
DROP INDEX dalp_indexed.erc20_transfer_from_time;
DROP INDEX dalp_indexed.erc20_transfer_to_time;
