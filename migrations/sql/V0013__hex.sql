-- Addresses and hashes are bytea, and everybody has them as 0x…: a comparison with that text is legal SQL, and never true.
CREATE FUNCTION dalp_indexed.hex(text) RETURNS bytea
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN decode(regexp_replace($1, '^(0x|0X|\\x)', ''), 'hex');
COMMENT ON FUNCTION dalp_indexed.hex(text) IS
$$The bytes of an address or hash that is written 0x…: WHERE token = dalp_indexed.hex('0x5122…'). It is evaluated once, so indexes and
partitions are chosen by it as by a constant.$$;

CREATE FUNCTION dalp_indexed.hex(bytea) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN '0x' || encode($1, 'hex');
COMMENT ON FUNCTION dalp_indexed.hex(bytea) IS 'Bytes as 0x and hexadecimal digits, as nodes and wallets write them.';

-- They read nothing: whoever may use the schema may use them.
