// The read path on the JVM: bundle -> state -> user vector -> exact top-k -> slate -> event.
// Written from docs/PORTING.md and the pages that it names; Conformance.kt shows that it is right.

import java.io.ByteArrayOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlin.math.abs
import kotlin.math.sqrt

/** BLAKE2b without a key (RFC 7693), of `size` bytes. */
fun blake2b(data: ByteArray, size: Int): ByteArray {
    val iv = longArrayOf(
        0x6A09E667F3BCC908L, -0x4498517A7B3558C5L, 0x3C6EF372FE94F82BL, -0x5AB00AC5A0E2C90FL,
        0x510E527FADE682D1L, -0x64FA9773D4C193E1L, 0x1F83D9ABFB41BD6BL, 0x5BE0CD19137E2179L
    )
    val sigma = arrayOf(
        "0123456789abcdef", "ea489fd61c02b753", "b8c052fdae367194", "7931dcbe265a40f8",
        "905724afe1bc683d", "2c6a0b834d75fe19", "c51fed4a0763928b", "db7ec13950f4862a",
        "6fe9b308c2d714a5", "a2847615fb9e3cd0"
    )
    val h = iv.clone()
    h[0] = h[0] xor 0x01010000L xor size.toLong()
    val blocks = maxOf(1, (data.size + 127) / 128)
    for (block in 0 until blocks) {
        val bytes = data.copyOfRange(block * 128, minOf(data.size, block * 128 + 128)).copyOf(128)
        val words = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
        val m = LongArray(16) { words.getLong(8 * it) }
        val v = h + iv
        v[12] = v[12] xor minOf(data.size, block * 128 + 128).toLong()
        if (block == blocks - 1) v[14] = v[14].inv()
        fun mix(a: Int, b: Int, c: Int, d: Int, x: Long, y: Long) {
            v[a] += v[b] + x
            v[d] = java.lang.Long.rotateRight(v[d] xor v[a], 32)
            v[c] += v[d]
            v[b] = java.lang.Long.rotateRight(v[b] xor v[c], 24)
            v[a] += v[b] + y
            v[d] = java.lang.Long.rotateRight(v[d] xor v[a], 16)
            v[c] += v[d]
            v[b] = java.lang.Long.rotateRight(v[b] xor v[c], 63)
        }
        for (round in 0 until 12) {
            val s = sigma[round % 10].map { Character.digit(it, 16) }
            for (i in 0..3) mix(i, 4 + i, 8 + i, 12 + i, m[s[2 * i]], m[s[2 * i + 1]])
            for (i in 0..3) {
                val (b, c, d) = listOf(4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
                mix(i, b, c, d, m[s[8 + 2 * i]], m[s[9 + 2 * i]])
            }
        }
        for (i in 0..7) h[i] = h[i] xor v[i] xor v[i + 8]
    }
    val out = ByteBuffer.allocate(64).order(ByteOrder.LITTLE_ENDIAN)
    h.forEach { out.putLong(it) }
    return out.array().copyOf(size)
}

/** Returns the UTF-8 of a text; a lone surrogate takes three bytes, as if it were a character. */
fun utf8(text: String): ByteArray {
    val out = ByteArrayOutputStream()
    text.codePoints().forEach {
        if (it in 0xD800..0xDFFF) {
            out.write(0xED)
            out.write(0x80 or (it shr 6 and 0x3F))
            out.write(0x80 or (it and 0x3F))
        } else {
            out.write(String(Character.toChars(it)).toByteArray())
        }
    }
    return out.toByteArray()
}

fun hex(bytes: ByteArray): String = bytes.joinToString("") { String.format("%02x", it) }

fun nextChecksum(checksum: String, item: String, kind: String): String =
    hex(blake2b(utf8("$checksum\u0000$item\u0000$kind"), 16))

/** One block of Philox4x32-10; counter and key are 32-bit words in Longs. */
fun philox(counter: List<Long>, key: List<Long>): List<Long> {
    val low = 0xFFFFFFFFL
    var c = counter
    var (k0, k1) = key
    repeat(10) {
        val p0 = 0xD2511F53L * c[0]
        val p1 = 0xCD9E8D57L * c[2]
        c = listOf(p1.ushr(32) xor c[1] xor k0, p1 and low, p0.ushr(32) xor c[3] xor k1, p0 and low)
        k0 = k0 + 0x9E3779B9L and low
        k1 = k1 + 0xBB67AE85L and low
    }
    return c
}

/** Returns two doubles in [0, 1) for each block of a decision. */
fun uniforms(decision: String, blocks: Int): List<List<Double>> {
    val words = decision.chunked(8).map { it.toLong(16) }
    return (0 until blocks).map { block ->
        val drawn = philox(listOf(block.toLong(), 0L) + words.take(2), words.drop(2))
        drawn.chunked(2).map { (high, low) ->
            (high.ushr(5) * 67108864.0 + low.ushr(6)) / 9007199254740992.0
        }
    }
}

typealias Json = Map<String, Any?>

class Found(val rows: List<Int>, val scores: List<Double>, val eligible: Int)

/** An opened bundle: its tensors in memory, and what follows from its weights. */
class Bundle(private val folder: File) {
    @Suppress("UNCHECKED_CAST")
    val manifest = JsonReader(File(folder, "manifest.json").readText()).read() as Json
    private val items = tensors("items.safetensors")
    private val policy = tensors("policy.safetensors")
    private val catalog = File(folder, "catalog.jsonl").readBytes()
    val n = size("items")
    private val d = size("dim")
    val c = size("state")
    private val rows = items.getValue("rows")
    private val scale = floats(items, "scale")
    private val bias = floats(items, "bias")
    private val weights = policy.mapValues { floats(policy, it.key) }
    private val decay = weight("state.decay")
    private val gain = FloatArray(c) { sqrt(1.0 - decay[it].toDouble() * decay[it]).toFloat() }
    private val w1 = weight("output.w1").let { w ->
        FloatArray(w.size) { w[it] * weight("output.gain")[it % c] }
    }
    private val b1 =
        floats(products(doubles("output.b1"), weight("output.w1"), weight("output.shift")))

    private fun weight(name: String) = weights.getValue(name)

    private fun size(name: String) = ((manifest["sizes"] as Map<*, *>)[name] as Long).toInt()

    private fun tensors(name: String): Map<String, ByteBuffer> {
        val data = File(folder, name).readBytes()
        val entry = (manifest["files"] as Map<*, *>)[name] as Map<*, *>
        val digest = hex(MessageDigest.getInstance("SHA-256").digest(data))
        check(digest == entry["sha256"]) { "$name: expected ${entry["sha256"]}, found $digest" }
        val length = ByteBuffer.wrap(data).order(ByteOrder.LITTLE_ENDIAN).getLong(0).toInt()
        val header = JsonReader(String(data, 8, length)).read() as Map<*, *>
        return header.filterKeys { it != "__metadata__" }.entries.associate { (key, value) ->
            val offsets = (value as Map<*, *>)["data_offsets"] as List<*>
            val (start, stop) = offsets.map { (it as Long).toInt() + 8 + length }
            val tensor = ByteBuffer.wrap(data, start, stop - start)
            key as String to tensor.slice().order(ByteOrder.LITTLE_ENDIAN)
        }
    }

    private fun floats(tensors: Map<String, ByteBuffer>, name: String): FloatArray {
        val view = tensors.getValue(name).asFloatBuffer()
        return FloatArray(view.remaining()) { view[it] }
    }

    private fun floats(numbers: DoubleArray) = FloatArray(numbers.size) { numbers[it].toFloat() }

    private fun doubles(name: String) =
        weight(name).let { w -> DoubleArray(w.size) { w[it].toDouble() } }

    /** Returns the row of an id, -1 for one that is not in the catalog. */
    fun find(item: String): Int {
        val hashes = items.getValue("id_hash").asLongBuffer()
        val wanted = ByteBuffer.wrap(blake2b(utf8(item), 8)).order(ByteOrder.LITTLE_ENDIAN).long
        var low = 0
        var high = n
        while (low < high) {
            val middle = (low + high) / 2
            val isBefore = java.lang.Long.compareUnsigned(hashes[middle], wanted) < 0
            if (isBefore) low = middle + 1 else high = middle
        }
        while (low < n && hashes[low] == wanted) {
            val row = items.getValue("id_row").asIntBuffer()[low++]
            if (id(row) == item) return row
        }
        return -1
    }

    fun id(row: Int): String {
        val offset = items.getValue("offset").asLongBuffer()
        val line = String(catalog, offset[row].toInt(), (offset[row + 1] - offset[row]).toInt())
        return (JsonReader(line).read() as Map<*, *>)["id"] as String
    }

    /** Adds weights [o, i] times inputs [i] to sums [o], in the order of the inputs. */
    private fun products(start: DoubleArray, weights: FloatArray, inputs: FloatArray): DoubleArray {
        val sums = start.clone()
        for (i in sums.indices) {
            for (j in inputs.indices) sums[i] += weights[i * inputs.size + j].toDouble() * inputs[j]
        }
        return sums
    }

    /** Returns the state after an event. */
    fun step(state: FloatArray, item: String, kind: String): FloatArray {
        val row = find(item)
        if (row < 0) return state
        val vector = FloatArray(d) { rows[row * d + it] * scale[row] }
        val sums = products(DoubleArray(c), weight("state.input"), vector)
        val place = maxOf(0, (manifest["kinds"] as List<*>).indexOf(kind))
        val gate = weight("state.kind")
        return FloatArray(c) {
            val added = (gain[it].toDouble() * gate[place * c + it] * sums[it]).toFloat()
            decay[it] * state[it] + added
        }
    }

    /** Returns the user vector of a state and, if there is one, a context's vector. */
    fun userVector(state: FloatArray, context: FloatArray?): FloatArray {
        var total = 0.0
        for (x in state) total += x
        val mean = total / c
        val centred = FloatArray(c) { (state[it] - mean).toFloat() }
        var energy = 0.0
        for (x in centred) energy += x.toDouble() * x
        val perSpread = 1.0 / sqrt(energy / c + 1e-5)
        val sums = products(DoubleArray(b1.size), w1, centred)
        val hidden = FloatArray(b1.size) {
            val x = sums[it] * perSpread + b1[it]
            (x / (1.0 + exp(-x))).toFloat()
        }
        val user = products(doubles("output.b2"), weight("output.w2"), hidden)
        if (context == null) return floats(user)
        return floats(products(user, weight("context.project"), context))
    }

    /** Returns the k best rows for a user vector, best first. */
    fun search(user: FloatArray, k: Int, left: (Int) -> Boolean): Found {
        val (z, step) = rounded(user)
        val found = (0 until n).filter(left).map { row -> Pair(row, score(row, z, step)) }
        val best = found.sortedWith(compareBy({ -it.second }, { it.first })).take(k)
        return Found(best.map { it.first }, best.map { it.second }, found.size)
    }

    fun score(row: Int, user: FloatArray): Double {
        val (z, step) = rounded(user)
        return score(row, z, step)
    }

    private fun score(row: Int, z: DoubleArray, step: Double): Double {
        var dot = 0.0
        for (i in 0 until d) dot += rows[row * d + i] * z[i]
        return dot * scale[row] * step + bias[row]
    }

    private fun rounded(user: FloatArray): Pair<DoubleArray, Double> {
        var peak = 0.0
        for (x in user) peak = maxOf(peak, abs(x.toDouble())) // NaN if one is
        if (!(peak >= 1e-12 && peak <= 1e12)) return Pair(DoubleArray(d), 0.0)
        return Pair(DoubleArray(d) { Math.rint(user[it] * (8388607.0 / peak)) }, peak / 8388607.0)
    }
}

/** exp in one order of arithmetic: 2^k times a series. */
fun exp(x: Double): Double {
    val limited = minOf(maxOf(x, -708.0), 708.0)
    val k = Math.rint(limited * 1.4426950408889634)
    val rest = (limited - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    var series = 1.0 / 3628800.0
    for (power in 9 downTo 0) {
        series = series * rest + 1.0 / (1..power).fold(1.0) { product, i -> product * i }
    }
    return Math.scalb(series, k.toInt())
}

class Slot(val rank: Int, val explored: Boolean, val conditional: Double, val marginal: Double?)

/** Draws a slate by scheme `sequential`. */
fun draw(slots: Int, pool: Int, epsilon: Double, pairs: List<List<Double>>): List<Slot> {
    val left = (0 until pool).toMutableList()
    return (0 until slots).map { slot ->
        val (trial, pick) = pairs[slot]
        val place = if (trial < epsilon) (pick * left.size).toInt() else 0
        val each = epsilon / left.size
        val rank = left.removeAt(place)
        val marginal = if (slots > 128) null else marginals(rank, slots, pool, epsilon)[slot]
        Slot(rank, trial < epsilon, if (place > 0) each else each + (1.0 - epsilon), marginal)
    }
}

/** Returns for each slot the probability that it shows rank j. */
fun marginals(j: Int, slots: Int, pool: Int, epsilon: Double): List<Double> {
    var taken = DoubleArray(slots + 1)
    taken[0] = 1.0
    var later = 1.0
    return (0 until slots).map { slot ->
        val each = epsilon / (pool - slot)
        if (j >= slots) {
            later.also { later *= 1.0 - each } * epsilon / (pool - slot)
        } else {
            val before = taken
            taken = DoubleArray(slots + 1)
            var shown = 0.0
            for (u in 0..slot) {
                val best = 1.0 - epsilon
                shown += before[u] * (each + if (u == j) best else 0.0)
                taken[u] += before[u] * (each * maxOf(pool - 1 - j - (slot - u), 0))
                taken[u + 1] += before[u] * (each * maxOf(j - u, 0) + if (u < j) best else 0.0)
            }
            shown
        }
    }
}

/** What a slate depends on beside the bundle and the user vector. */
class Request(
    val k: Int,
    val epsilon: Double,
    val pool: Int,
    val exclude: List<String>,
    val decision: String
)

class Slate(
    val ranking: Found,
    val slots: List<Slot>,
    val items: List<String>,
    val namesPool: Boolean
)

/** Ranks the pool for a user vector and draws a slate of it. */
fun recommend(bundle: Bundle, user: FloatArray, request: Request): Slate {
    val excluded = request.exclude.map { bundle.find(it) }.filter { it >= 0 }.toSet()
    val size = maxOf(request.pool, request.k)
    val ranking = bundle.search(user, size) { it !in excluded }
    val k = minOf(request.k, ranking.rows.size)
    val slots = draw(k, ranking.rows.size, request.epsilon, uniforms(request.decision, k))
    // Nobody could rebuild a pool in which an excluded item would have been.
    val namesPool = excluded.isNotEmpty() && (ranking.rows.size < size ||
        excluded.any { bundle.score(it, user) >= ranking.scores.last() })
    return Slate(ranking, slots, slots.map { bundle.id(ranking.rows[it.rank]) }, namesPool)
}

/** Returns the line of a decision; `common` has what all events have and the state's fields. */
fun event(
    bundle: Bundle,
    request: Request,
    slate: Slate,
    common: Json,
    withMarginals: Boolean = true
): String {
    val shown = slate.slots.mapIndexed { i, slot ->
        linkedMapOf(
            "item" to slate.items[i], "rank" to slot.rank, "explored" to slot.explored,
            "conditional" to slot.conditional, "marginal" to slot.marginal.takeIf { withMarginals }
        )
    }
    val line = linkedMapOf<String, Any?>("type" to "decision", "id" to request.decision)
    for (name in listOf("install", "seq", "user", "clock")) line[name] = common[name]
    line += listOf("release" to bundle.manifest["release"], "scheme" to "sequential")
    line += listOf("epsilon" to request.epsilon, "pool" to slate.ranking.rows.size)
    line += listOf("eligible" to slate.ranking.eligible, "slate" to shown)
    for (name in listOf("state_checksum", "state_events")) line[name] = common[name]
    line += listOf("context" to null, "pass_probability" to 1.0)
    if (slate.namesPool) line["pool_items"] = slate.ranking.rows.map { bundle.id(it) }
    return encoded(line)
}
