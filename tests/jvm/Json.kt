// JSON as events have it: no library of the JVM writes doubles as the engine does.

import java.math.BigDecimal
import java.math.MathContext
import java.math.RoundingMode

/** Reads JSON: maps keep their order, whole numbers are Long, others Double. */
class JsonReader(private val text: String) {
    private var at = 0

    fun read(): Any? {
        skip()
        val c = text[at]
        return when {
            c == '{' -> map()
            c == '[' -> list()
            c == '"' -> string()
            text.startsWith("true", at) -> true.also { at += 4 }
            text.startsWith("false", at) -> false.also { at += 5 }
            text.startsWith("null", at) -> null.also { at += 4 }
            else -> number()
        }
    }

    private fun skip() {
        while (at < text.length && text[at] <= ' ') at++
    }

    private fun map(): Map<String, Any?> {
        val entries = LinkedHashMap<String, Any?>()
        each('}') {
            val key = string()
            skip()
            at++ // the colon
            entries[key] = read()
        }
        return entries
    }

    private fun list(): List<Any?> = ArrayList<Any?>().also { all -> each(']') { all.add(read()) } }

    private fun each(end: Char, element: () -> Unit) {
        at++
        skip()
        while (text[at] != end) {
            element()
            skip()
            if (text[at] == ',') at++
            skip()
        }
        at++
    }

    private fun string(): String {
        val out = StringBuilder()
        at++
        while (text[at] != '"') {
            if (text[at] != '\\') {
                out.append(text[at++])
                continue
            }
            val place = "bfnrt".indexOf(text[at + 1])
            if (text[at + 1] == 'u') {
                out.append(text.substring(at + 2, at + 6).toInt(16).toChar())
                at += 4
            } else {
                out.append(if (place < 0) text[at + 1] else "\b\u000c\n\r\t"[place])
            }
            at += 2
        }
        at++
        return out.toString()
    }

    private fun number(): Any {
        val start = at
        while (at < text.length && text[at] in "+-.eE0123456789") at++
        val digits = text.substring(start, at)
        return if (digits.any { it in ".eE" }) digits.toDouble() else digits.toLong()
    }
}

/** Writes JSON as the engine does, without blanks. */
fun encoded(value: Any?): String = when (value) {
    is Map<*, *> ->
        value.entries.joinToString(",", "{", "}") { "${encoded(it.key)}:${encoded(it.value)}" }
    is List<*> -> value.joinToString(",", "[", "]") { encoded(it) }
    is String -> quoted(value)
    is Double -> shortest(value)
    else -> value.toString()
}

private fun quoted(text: String): String {
    val out = StringBuilder("\"")
    for (c in text) {
        val place = "\"\\\b\u000c\n\r\t".indexOf(c)
        when {
            place >= 0 -> out.append('\\').append("\"\\bfnrt"[place])
            c < ' ' -> out.append(String.format("\\u%04x", c.toInt()))
            else -> out.append(c)
        }
    }
    return out.append('"').toString()
}

/**
 * Returns the fewest digits that read back as the same double; Java 17 may print more.
 *
 * Below a power of two doubles are closer than above it: there the nearest number of so few digits
 * may be another double, and the next one the right one.
 */
private fun shortest(value: Double): String {
    if (value == 0.0) return if (1.0 / value < 0.0) "-0.0" else "0.0"
    val exact = BigDecimal(value)
    val ways = listOf(RoundingMode.HALF_EVEN, RoundingMode.UP, RoundingMode.DOWN)
    val decimal = (1..17).flatMap { digits -> ways.map { exact.round(MathContext(digits, it)) } }
        .first { it.toDouble() == value }.stripTrailingZeros()
    val power = decimal.precision() - decimal.scale() - 1
    if (power in -5..15) {
        val plain = decimal.toPlainString()
        return if ('.' in plain) plain else "$plain.0"
    }
    val digits = decimal.unscaledValue().abs().toString()
    val mantissa = digits.take(1) + if (digits.length > 1) "." + digits.drop(1) else ""
    return (if (value < 0.0) "-" else "") + mantissa + "e" + power
}
