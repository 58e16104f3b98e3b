#!/usr/bin/perl
# The other scripts notice what they are for: each planted fault fails, and its opposite does not.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename;
use File::Path qw(make_path);
use File::Temp qw(tempdir);

my $here = abs_path(dirname(__FILE__));
my $order = "[folders]\na:\nb: a\n\n[a]\nlow: under\nhigh: over\n\n[circles]\n";
my $failed = 0;

# What a script says of a house of these files, by name.
sub said
{
	my ($script, $layers, %files) = @_;
	my $root = tempdir(CLEANUP => 1);

	$files{'layers.txt'} = $layers;
	$files{'doc/architecture.md'} = "```\n" . $layers =~ s/\s*\[circles\].*//sr . "\n```\n";
	make_path("$root/kernels");
	foreach my $name (keys %files)
	{
		make_path(dirname("$root/$name"));
		open my $out, '>', "$root/$name" or die "$name: $!\n";
		print $out $files{$name};
		close $out;
		next unless $name =~ m{^src/(.*)\.c$};
		make_path(dirname("$root/objects/$1"));
		system('gcc', '-c', '-o', "$root/objects/$1.o", "$root/$name") == 0 or die "gcc failed\n";
	}
	my @more = $script eq 'layers' ? ('--layers', "$root/layers.txt") : ();
	return `$here/$script.pl --root $root --objects $root/objects @more`;
}

sub finds
{
	my ($what, $wanted, @said) = @_;
	my $said = said(@said);

	return if $said =~ $wanted;
	print "FAILED: $what: $said";
	$failed++;
}

my $under = "int under(void)\n{\n\treturn 1;\n}\n";
my $over = "int under(void);\nint over(void)\n{\n\treturn under();\n}\n";
my $circle = "int over(void);\nint under(void)\n{\n\treturn over();\n}\n";
my @good = ('src/a/under.c' => $under, 'src/a/over.c' => $over);

finds('a call down', qr/^layers: ok$/m, 'layers', $order, @good);
finds('a call up', qr/^FAILED: 1 arrows against/m, 'layers', $order =~ s/(low|high): (\w+)\n/$1: /gr
	=~ s/low: high: /low: over\nhigh: under\n/r, @good);
finds('a circle', qr/^FAILED: a circle of 2 files/m, 'layers', $order =~ s/over//r =~ s/under/$&
	over/r, 'src/a/under.c' => $circle, 'src/a/over.c' => $over);
finds('a circle that is allowed', qr/^layers: ok$/m, 'layers', "${order}a/over a/under: planted\n",
	'src/a/under.c' => $circle, 'src/a/over.c' => $over);
finds('three circles', qr/^FAILED: .* more than 2 circles/m, 'layers',
	$order . "a/x a/y: planted\n" x 3, @good);
finds('a large circle', qr/^FAILED: .* circle of more than 3/m, 'layers',
	"${order}a/w a/x a/y a/z: planted\n", @good);
finds('a folder that is not to be called', qr/\(a may not call b\)/, 'layers', $order, @good,
	'src/b/above.c' => "int above(void)\n{\n\treturn 1;\n}\n",
	'src/a/over.c' => "int above(void);\nint over(void)\n{\n\treturn above();\n}\n");
finds('a file without a level', qr/other\.c has no level/, 'layers', $order, @good,
	'src/a/other.c' => "int other;\n");
finds('an include', qr/under\.h:1 includes postgres\.h/, 'layers', $order, @good,
	'src/a/under.h' => "#include \"postgres.h\"\n");

my $static = "static int\nhelper(void)\n{\n\treturn 1;\n}\n\n"
	. "int\n%s(void)\n{\n\treturn helper();\n}\n";
finds('a function twice', qr/^FAILED: function helper/m, 'names', $order,
	'src/a/under.c' => sprintf($static, 'one'), 'src/a/over.c' => sprintf($static, 'two'));
finds('a struct twice', qr/^FAILED: type Thing/m, 'names', $order,
	map { ("src/a/$_.h" => "typedef struct Thing\n{\n\tint x;\n} Thing;\n") } 'under', 'over');
finds('a file twice', qr/^FAILED: file under/m, 'names', $order, @good, 'src/b/under.c' => '');
finds('each name once', qr/^names: ok$/m, 'names', $order, @good);

finds('a long line', qr/under\.h:1: 101 columns/, 'format', $order,
	'src/a/under.h' => 'extern int ' . 'y' x 89 . ";\n");
finds('a long comment', qr/under\.h:1: 8[1-9] columns/, 'format', $order,
	'src/a/under.h' => '/* ' . 'word ' x 16 . "*/\n");
finds('a long document', qr/long\.md:1: 121 columns/, 'format', $order,
	'long.md' => 'x' x 121 . "\n");
finds('a file that tests share', qr/shared\.pl:1: other tests use tmp_check/, 'format', $order,
	'test/t/shared.pl' => "my \$file = \"\$tmp_check/dump\";\n");
print $failed ? "planted: $failed failed\n" : "planted: ok\n";
exit($failed ? 1 : 0);
