// Runs the conformance set against the read path: `java -jar ReadPath.jar ROOT [FILE …]` prints a
// line for each file of tests/conformance, and fails where an answer differs.

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.Base64
import kotlin.math.abs
import kotlin.system.exitProcess

/** One file of cases, and what they share. */
@Suppress("UNCHECKED_CAST")
class Cases(val root: File, name: String) {
    val shared = JsonReader(File(root, "tests/conformance/$name.json").readText()).read() as Json
    val all = shared["cases"] as List<Json>
    private val opened = HashMap<String, Bundle>()

    fun bundle(case: Json): Bundle = opened.getOrPut(case["bundle"] as String) {
        Bundle(File(root, (shared["bundles"] as Json)[case["bundle"]] as String))
    }

    fun tolerance(field: String): Double = (shared["tolerance"] as Json)[field] as Double? ?: 0.0

    /** Returns the user vector of a case: its own, or a place in what the bundle's cases share. */
    fun user(case: Json): FloatArray {
        val user = case["user"]
        if (user is String) return unpacked(user)
        val ofBundle = (shared["users"] as Json)[case["bundle"]] as List<String>
        return unpacked(ofBundle[(user as Long).toInt()])
    }
}

fun unpacked(text: String): FloatArray {
    val data = ByteBuffer.wrap(Base64.getDecoder().decode(text)).order(ByteOrder.LITTLE_ENDIAN)
    return FloatArray(data.remaining() / 4) { data.getFloat(4 * it) }
}

/** Returns whether an answer is what a case expects: doubles to the last bit, or within a bound. */
fun same(expected: Any?, found: Any?, bound: Double = 0.0): Boolean = when {
    expected is List<*> && found is List<*> -> expected.size == found.size &&
        expected.indices.all { same(expected[it], found[it], bound) }
    expected is Double && found is Double -> expected == found || abs(expected - found) <= bound
    expected is Long && found is Int -> expected == found.toLong()
    else -> expected == found
}

fun near(expected: String, found: FloatArray, bound: Double): Boolean {
    val vector = unpacked(expected)
    return vector.size == found.size &&
        vector.indices.all { vector[it] == found[it] || abs(vector[it] - found[it]) <= bound }
}

fun hashes(case: Json): Boolean = when {
    "text" in case -> utf8(case["text"] as String).let {
        hex(blake2b(it, 8).reversedArray()) == case["id_hash"] &&
            hex(blake2b(it, 16)) == case["blake2b_128"]
    }
    "checksum" in case ->
        nextChecksum(case["before"] as String, case["item"] as String, case["kind"] as String) ==
            case["checksum"]
    else -> true // arms and ids are no part of the read path
}

/** Returns the state that a case's events make, and their checksum. */
fun replayed(bundle: Bundle, case: Json): Pair<FloatArray, String> {
    var state = FloatArray(bundle.c)
    var checksum = "0".repeat(32)
    for (event in case["events"] as List<*>) {
        val (item, kind) = (event as List<*>).map { it as String }
        state = bundle.step(state, item, kind)
        checksum = nextChecksum(checksum, item, kind)
    }
    return Pair(state, checksum)
}

fun states(cases: Cases, case: Json): Boolean {
    val bundle = cases.bundle(case)
    val (state, checksum) = replayed(bundle, case)
    val user = bundle.userVector(state, (case["context"] as String?)?.let { unpacked(it) })
    return checksum == case["checksum"] &&
        near(case["state"] as String, state, cases.tolerance("state")) &&
        near(case["user"] as String, user, cases.tolerance("user"))
}

fun search(cases: Cases, case: Json): Boolean {
    val hidden = listOf("excluded", "hidden").flatMap { case[it] as List<*>? ?: listOf<Any?>() }
    val left = { row: Int -> row.toLong() !in hidden }
    val found = cases.bundle(case).search(cases.user(case), (case["k"] as Long).toInt(), left)
    return same(case["rows"], found.rows) && same(case["scores"], found.scores) &&
        same(case["eligible"], found.eligible)
}

@Suppress("UNCHECKED_CAST")
fun request(case: Json): Request {
    val plan = case["plan"] as Json
    val asked = case["request"] as Json
    return Request(
        (asked["k"] as Long).toInt(), plan["epsilon"] as Double, (plan["pool"] as Long).toInt(),
        asked["exclude"] as List<String>? ?: listOf(), case["decision"] as String
    )
}

@Suppress("UNCHECKED_CAST")
fun slates(cases: Cases, case: Json): Boolean {
    val bundle = cases.bundle(case)
    val slate = recommend(bundle, cases.user(case), request(case))
    val expected = case["slate"] as Json
    val line = event(bundle, request(case), slate, cases.shared["common"] as Json, false)
    val ranking = slate.ranking
    return same(expected["items"], slate.items) &&
        same(expected["scores"], slate.slots.map { ranking.scores[it.rank] }) &&
        same(expected["ranks"], slate.slots.map { it.rank }) &&
        same(expected["explored"], slate.slots.map { if (it.explored) 1 else 0 }) &&
        same(expected["conditional"], slate.slots.map { it.conditional }) &&
        same(expected["marginal"], slate.slots.map { it.marginal }, cases.tolerance("marginal")) &&
        same(expected["pool"], ranking.rows.size) &&
        same(expected["eligible"], ranking.eligible) &&
        (expected["pool_items"] ?: slate.ranking) ==
            (if ("pool_items" in expected) ranking.rows.map { bundle.id(it) } else ranking) &&
        expected["event"] == hex(blake2b(line.toByteArray(), 8))
}

/** Goes the whole way: from events to the bytes of the decision. */
@Suppress("UNCHECKED_CAST")
fun readPath(cases: Cases, case: Json): Boolean {
    val bundle = cases.bundle(case)
    val (state, checksum) = replayed(bundle, case)
    val slate = recommend(bundle, bundle.userVector(state, null), request(case))
    val steps = (case["events"] as List<*>).size
    val ofState = mapOf("state_checksum" to checksum, "state_events" to steps)
    val common = cases.shared["common"] as Json + ofState
    return event(bundle, request(case), slate, common) == case["line"]
}

fun main(args: Array<String>) {
    val checks = linkedMapOf<String, (Cases, Json) -> Boolean>(
        "philox" to { _, case ->
            @Suppress("UNCHECKED_CAST")
            philox(case["counter"] as List<Long>, case["key"] as List<Long>) == case["words"]
        },
        "uniforms" to { _, case ->
            val expected = case["uniforms"] as List<*>
            same(expected, uniforms(case["decision"] as String, expected.size))
        },
        "hashes" to { _, case -> hashes(case) },
        "events" to { _, case ->
            encoded(JsonReader(case["line"] as String).read()) == case["line"]
        },
        "states" to ::states,
        "search" to ::search,
        "slates-sequential" to ::slates,
        "read-path" to ::readPath
    )
    var failed = 0
    for (name in if (args.size > 1) args.drop(1) else checks.keys.toList()) {
        val cases = Cases(File(args[0]), name)
        val differing = cases.all.filterNot { checks.getValue(name)(cases, it) }
        println("$name: ${cases.all.size - differing.size} of ${cases.all.size}")
        differing.take(3).forEach { System.err.println("$name differs: " + encoded(it).take(400)) }
        failed += differing.size
    }
    exitProcess(if (failed > 0) 1 else 0)
}
