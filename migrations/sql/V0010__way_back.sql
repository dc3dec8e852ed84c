-- A leaf that is attached again keeps the CHECKs that it had, and loses only what its detaching left.

ALTER TABLE dalp_indexed.leaf ADD COLUMN checks text[];
COMMENT ON COLUMN dalp_indexed.leaf.checks IS
    'Names of the CHECKs that it had when we began to detach it: they stay when it is attached again. Null if we did not.';
-- What an older program detached: whatever says the bounds is taken for what its detaching left.
UPDATE dalp_indexed.leaf SET checks = '{}' WHERE state IN ('DETACHING', 'DETACHED');
