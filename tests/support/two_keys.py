"""Crafts an AES-GCM ciphertext whose tag holds under two keys (NIST SP 800-38D)."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

BLOCK = 16
# x^128 + x^7 + x^2 + x + 1, in GCM's order of bits: the most significant bit is x^0.
_REDUCTION = 0xE1 << 120


def two_key_ciphertext(
    first: tuple[bytes, bytes], second: tuple[bytes, bytes], blocks: bytes
) -> bytes:
    """Return a ciphertext with tag that opens under two keys, without associated data.

    Args:
        first: a key and its 12-byte nonce.
        second: another key and its nonce.
        blocks: how the ciphertext begins, whole blocks. One crafted block follows them, then the
            tag.
    """
    (power1, mask1), (power2, mask2) = (_ghash_key_and_mask(*pair) for pair in (first, second))
    length = (8 * (len(blocks) + BLOCK)).to_bytes(BLOCK, "big")
    # The tag is linear in the crafted block X, which stands second to last:
    # ghash(blocks, X=0) + X * h^2 + mask must be equal under both keys.
    rest1 = _ghash(power1, blocks + bytes(BLOCK) + length) ^ mask1
    rest2 = _ghash(power2, blocks + bytes(BLOCK) + length) ^ mask2
    crafted = _multiply(
        rest1 ^ rest2, _inverse(_multiply(power1, power1) ^ _multiply(power2, power2))
    ).to_bytes(BLOCK, "big")
    tag = _ghash(power1, blocks + crafted + length) ^ mask1
    return blocks + crafted + tag.to_bytes(BLOCK, "big")


def _ghash_key_and_mask(key: bytes, nonce: bytes) -> tuple[int, int]:
    block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305 - single blocks
    return (
        int.from_bytes(block.update(bytes(BLOCK)), "big"),
        int.from_bytes(block.update(nonce + b"\0\0\0\1"), "big"),
    )


def _ghash(key: int, data: bytes) -> int:
    value = 0
    for start in range(0, len(data), BLOCK):
        value = _multiply(value ^ int.from_bytes(data[start : start + BLOCK], "big"), key)
    return value


def _multiply(left: int, right: int) -> int:
    product = 0
    for bit in range(127, -1, -1):
        if left >> bit & 1:
            product ^= right
        right = right >> 1 ^ (_REDUCTION if right & 1 else 0)
    return product


def _inverse(value: int) -> int:
    # value ** (2 ** 128 - 2), as the group has 2 ** 128 - 1 elements.
    result, power = 1 << 127, value
    for _ in range(127):
        power = _multiply(power, power)
        result = _multiply(result, power)
    return result
