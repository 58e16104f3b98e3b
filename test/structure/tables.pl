#!/usr/bin/perl
# The tables of doc/performance.md and doc/comparison.md, and README's chart, say what the results
# in the repository say, and are made of such results as they should be.
use strict;
use warnings;
use Cwd qw(abs_path);
use Encode;
use File::Basename;
use File::Copy;
use File::Temp qw(tempdir);

chdir(dirname(abs_path($0)) . '/../..') or die $!;
my $failed = 0;
my $dir = tempdir(CLEANUP => 1);

sub check
{
	my ($good, $what) = @_;

	return if $good;
	print "FAILED: $what\n";
	$failed++;
}

sub slurp
{
	my ($path) = @_;

	open(my $file, '<:encoding(UTF-8)', $path) or return '';
	local $/;
	return <$file>;
}

# Runs bench/tables.py on copies of the documents.
sub tables
{
	my $python = "python3 bench/tables.py --document $dir/performance.md --readme $dir/README.md "
		. "--gpu $dir/none --amx $dir/none";

	return system("$python @_ 2>/dev/null") == 0;
}

sub write_facts
{
	my ($path, @facts) = @_;

	open(my $file, '>', $path) or die $!;
	print $file "$_\n" for @facts;
	close $file;
	return $path;
}

if (system('python3 -c "" 2>/dev/null') != 0)
{
	print "skipped: no python3\ntables: ok\n";
	exit 0;
}
check(system('python3', 'bench/tables.py', '--check') == 0, 'documents and results agree');
copy('doc/performance.md', $dir);
copy('README.md', $dir);
my @machine = ('"kind": "machine", "processor": "P1", "cores": 2, "threads": 2, "date": "D1"',
	'"kind": "version", "side": "torch", "version": "PyTorch 1"');
my $place = '"network": "G256", "precision": "fp32", "batch": 1';
# The second round of the peer was disturbed: neither its time nor its ratio counts.
my @facts = map { "{$_}" } @machine,
	qq("kind": "inference", $place, "side": "bicycle", "round": 0, "others": 0, "ms": [10, 12]),
	qq("kind": "inference", $place, "side": "bicycle", "round": 1, "others": 0, "ms": [20, 22]),
	qq("kind": "inference", $place, "side": "torch", "round": 0, "others": 0, "ms": [30, 34]),
	qq("kind": "inference", $place, "side": "torch", "round": 1, "others": 0.5, "ms": [5, 5]),
	qq("kind": "inference", $place, "side": "openvino", "round": 0, "others": 0.5, "ms": [15]),
	'"kind": "training", "network": "T256", "precision": "fp32", "side": "bicycle", "round": 0, '
	. '"others": 0, "seconds": 1, "median": 2, "mib": 100',
	'"kind": "sql", "what": "engine, batch 16", "precision": "fp32", "rows": 16, "sessions": 0, '
	. '"round": 0, "others": 0, "ms": 9',
	'"kind": "sql", "what": "sessions", "precision": "fp32", "rows": 8, "sessions": 32, '
	. '"round": 0, "others": 0, "ms": 10, "p50": 11, "p99": 12',
	'"kind": "sql", "what": "bulk of rows", "precision": "fp32", "rows": 100, "sessions": 1, '
	. '"round": 0, "others": 0, "ms": 10',
	'"kind": "memory", "sessions": 8, "precision": "fp32", "engine": 700, "backends": 90',
	'"kind": "lpips", "side": "bicycle", "net": "alex", "round": 0, "others": 0, "ms": 4',
	'"kind": "lpips", "side": "lpips", "net": "alex", "round": 0, "others": 0, "ms": 6',
	'"kind": "fill", "what": "bicycle_fill", "rows": 64, "round": 0, "others": 0, "rate": 500.4',
	'"kind": "beside", "what": "nothing", "round": 0, "others": 0, "p50": 2, "p99": 3, "rate": 0';
my $results = write_facts("$dir/cpu.jsonl", @facts);
check(tables('--cpu', $results), 'tables are made');
my $text = slurp("$dir/performance.md");
for my $line ('Measured on P1, 2 of 2 processors, D1: PyTorch 1.',
	'| G256 | fp32 | 1 | 10.00 / 16.00 | 30.00 / 32.00 (3.00) | - | 15.00 / 15.00\\* (1.50) |',
	'| 256 | fp32 | 1.00 / 2.00 | 100 | - | - |',
	'| sessions | fp32 | 32 | 10.00 / 10.00 | 0.90 | 11.0 | 12.0 |',
	'| 100 | fp32 | 10.00 / 10.00 |', '| 8 | fp32 | 700 | 90 |',
	'| alex | 4.00 / 4.00 | 6.00 / 6.00 (1.50) |', '| bicycle_fill | 64 | 500 |',
	'| nothing | 2.0 | 3.0 | 0.0 |')
{
	check(index($text, "\n$line\n") >= 0, "a line of the document: $line");
}
check(slurp("$dir/speed.svg") =~ /10\.0 ms, bicycle.*30\.0 ms, PyTorch/s, 'the chart has bars');
check(slurp("$dir/README.md") =~ /\]\(doc\/speed\.svg\)/, 'README shows the chart');
check(tables('--check', '--cpu', $results), 'they agree with what they were made of');
# Of a processor with AMX, which the chart prefers.
my $amx = write_facts("$dir/amx.jsonl",
	map { s/P1/P2/r =~ s/"ms": \[10, 12\]/"ms": [8, 12]/r } @facts);
check(tables('--cpu', $results, '--amx', $amx), 'tables of two processors are made');
$text = slurp("$dir/performance.md");
for my $line ('Measured on P1, 2 of 2 processors, D1: PyTorch 1.',
	'Measured on P2, 2 of 2 processors, D1: PyTorch 1.',
	'| G256 | fp32 | 1 | 10.00 / 16.00 | 30.00 / 32.00 (3.00) | - | 15.00 / 15.00\* (1.50) |',
	'| G256 | fp32 | 1 | 8.00 / 16.00 | 30.00 / 32.00 (3.75) | - | 15.00 / 15.00\* (1.88) |')
{
	check(index($text, "\n$line\n") >= 0, "a line of the document: $line");
}
check(slurp("$dir/speed.svg") =~ /8\.0 ms, bicycle.*P2/s, 'the chart is of the one with AMX');
check(tables('--cpu', $results), 'and of the other again');
write_facts($results, @facts, '{"kind": "memory", "sessions": 9, "precision": "fp32", '
	. '"engine": 1, "backends": 2}');
check(!tables('--check', '--cpu', $results), 'and not with another fact');
# Of a GPU, which runs 64 images in plans of 16.
my $gpu = write_facts("$dir/gpu.jsonl", map { "{$_}" }
	'"kind": "machine", "card": "C1", "processors": 16, "date": "D1"',
	'"kind": "plan", "precision": "bf16", "batch": 16, "us": 1600, "limit": 400',
	'"kind": "step", "layer": "L1", "n": 16, "us": 100, "limit": 25',
	map { qq("kind": "inference", "network": "G256", "precision": "bf16", "batch": $_, "ms": 0.2) }
	16, 64);
check(tables('--gpu', $gpu), 'tables of a GPU are made');
$text = slurp("$dir/performance.md");
for my $line ('Measured on C1, 16 processors, D1.', map({ "| $_ | 0.1000 / 0.2000 | - / - / - |"
	. ' - / - / - | - / - / - | - / - / - |' } 16, 64), '| L1 | - | 100.0 (25%) |')
{
	check(index($text, "\n$line\n") >= 0, "a line of the document: $line");
}
write_facts($results, '{"kind": "machine", "tiny": true}');
check(!tables('--cpu', $results), 'what was made to try the script is refused');

# ---- The comparison -------------------------------------------------------

# Runs bench/comparison.py on a copy of its document; returns what it prints, or undef.
sub comparison
{
	my $out = `python3 bench/comparison.py --document $dir/comparison.md @_ 2>/dev/null`;

	return $? == 0 ? $out : undef;
}

sub run_of
{
	my ($system, $seed, %value) = @_;
	my $metrics = join(', ', map { qq("$_": {"value": $value{$_}, "stderr": 1, "n": 9}) }
		sort keys %value);

	return qq({"kind": "run", "task": "icons", "size": 64, "system": "$system", "seed": $seed, )
		. qq("commit": "C1", "device": "cpu (AVX2, arithmetic 2, 1 thread)", "tiny": false, )
		. qq("metrics": {$metrics}});
}

check(defined comparison('--check'), 'the comparison and its results agree')
	if copy('doc/comparison.md', $dir);
# Of 0.1, 0.2 and 0.3 the standard deviation is 0.1: 4.303 * 0.1 / sqrt(3) is 0.248.
@facts = ((map { run_of('bicycle', $_, diversity_lpips => $_ / 10, best_l1 => 1) } 1 .. 3),
	(map { run_of('cae_gan', $_, diversity_lpips => 0.5, best_l1 => 1) } 1 .. 3),
	run_of('clr_gan', 1, diversity_lpips => 0.25, best_l1 => 1));
$results = write_facts("$dir/comparison.jsonl", @facts);
check(defined comparison('--results', $results), 'its tables are made');
$text = slurp("$dir/comparison.md");
for my $line ('| `bicycle` | 3 | 0.200 ± 0.248 | - | - | - | - | - | - |',
	'| `clr_gan` | 1 | 0.250 | - | - | - | - | - | - |',
	'| `cvae_gan` | 0 | not run | not run | not run | not run | not run | not run | not run |')
{
	check(index($text, "\n" . decode('UTF-8', $line) . "\n") >= 0, "a line of it: $line");
}
check($text =~ /^7 of 66 runs at 64 pixels have a result, and 0 of 12 at 128/m, 'it counts');
check($text =~ /Commits:/ && $text !~ /^[^|\n].{120}/m, 'in lines that a document may have');
check(comparison('--extremes', 'icons', '--results', $results, qw(bicycle cae_gan)) eq
	"bicycle cae_gan\n", 'the two that differ most are known');
check(comparison('--extremes', 'icons', '--results', $results, qw(bicycle clr_gan)) eq "\n",
	'and not while a run of them is missing');
check(!defined comparison('--check'), 'with other results they disagree');
write_facts($results, run_of('bicycle', 1, best_l1 => 1) =~ s/"tiny": false/"tiny": true/r);
check(!defined comparison('--results', $results), 'tiny ones are refused');

print $failed ? "tables: $failed failed\n" : "tables: ok\n";
exit($failed > 0);
