#!/usr/bin/perl
# Does what is compiled keep the order of layers.txt?
#
# Usage: test/structure/layers.pl [--objects DIRECTORY] [--root DIRECTORY] [--layers FILE] [--write]
#
# Asks nm of every object file which names it defines and needs, and makes arrows between files of
# it. Fails on an arrow to a higher level or to a folder that is not to be called; on a circle of
# files, but for those that layers.txt names with a reason; on a source file that has no level; on
# an include against the same order, of postgres.h outside src/pg, and of malloc in src/common; and
# where doc/architecture.md does not print the same table (--write prints it there).
#
# Without --objects it has them made first: make all-objects.
use strict;
use warnings;
use Cwd qw(abs_path);
use File::Basename;

use constant CIRCLES => 2;				# so many may be in layers.txt
use constant CIRCLE_FILES => 3;			# of so many files each

my $root = abs_path(dirname(__FILE__) . "/../..");
my ($objects, $layers_file, $write);
while (my $option = shift)
{
	if    ($option eq '--objects') { $objects = shift; }
	elsif ($option eq '--root')    { $root = shift; }
	elsif ($option eq '--layers')  { $layers_file = abs_path(shift); }
	elsif ($option eq '--write')   { $write = 1; }
	else                           { die "unknown option \"$option\"\n"; }
}
chdir $root or die "$root: $!\n";
$layers_file //= "test/structure/layers.txt";
if (!$objects)
{
	$objects = ($ENV{BUILD} || 'build') . "/release";
	my $jobs = `nproc`;
	system("make -s -j" . int($jobs) . " all-objects >/dev/null") == 0
	  or die "make all-objects failed\n";
}
my $failed = 0;

sub fail { print "FAILED: @_\n"; $failed++; }

# ---- The order ------------------------------------------------------------

my (%may, %levels, @circles);
my ($table, $section) = ('', '');
open my $in, '<', $layers_file or die "$layers_file: $!\n";
while (my $line = <$in>)
{
	next if $line =~ /^#/;
	last if $line =~ /^\[circles\]/;
	$table .= $line if $table ne '' || $line =~ /\S/;
	if ($line =~ /^\[(.*)\]$/)
	{
		$section = $1;
	}
	elsif ($section eq 'folders' && $line =~ /^(\w+):\s*(.*)$/)
	{
		$may{$1} = { map { $_ => 1 } $1, split ' ', $2 };
	}
	elsif ($line =~ /^(?:(\w+):)?\s*(\S.*)$/)
	{
		push @{ $levels{$section} }, { name => $1, files => [] } if defined $1;
		push @{ $levels{$section}[-1]{files} }, split ' ', $2;
	}
}
while (my $line = <$in>)
{
	next if $line =~ /^#|^\s*$/;
	if ($line =~ /^([^:]+): (.+)$/)
	{
		push @circles, [ split ' ', $1 ];
	}
	else
	{
		fail("$layers_file: what is \"$line\"?");
	}
}
close $in;
$table =~ s/\s+\z/\n/;

fail("layers.txt allows more than @{[CIRCLES]} circles") if @circles > CIRCLES;
fail("layers.txt allows a circle of more than @{[CIRCLE_FILES]} files: @$_")
  foreach grep { @$_ > CIRCLE_FILES } @circles;

# level_of(FILE) of a name like engine/log: its number and name, or none
sub level_of
{
	my ($folder, $file) = split m{/}, $_[0], 2;
	my $list = $levels{$folder} or return (0, $folder);

	for my $exact (1, 0)
	{
		for my $number (0 .. $#$list)
		{
			foreach my $pattern (@{ $list->[$number]{files} })
			{
				my $match = $exact ? $pattern eq $file
				  : $pattern =~ m{^(.*)\*$} && index($file, $1) == 0;
				return ($number, "$folder, $list->[$number]{name}") if $match;
			}
		}
	}
	return;
}

# ---- What is there --------------------------------------------------------

# An object of the engine, one of PGXS, one for the imitation of a GPU, or, for what only cuDNN's
# headers can compile, one of the CUDA device, if it is not an old one.
sub object_of
{
	my ($name, $path) = @_;
	(my $imitated = $name) =~ s{^(kernels|nn/cuda)/}{};
	my @places = ("$objects/$name.o", "src/$name.o", "$objects/imitation/$imitated.o");
	my $real = "$objects/cuda/$name.o";

	push @places, $real if -f $real && -M $real < -M $path;
	return (grep { -f } @places)[0];
}

my @sources = split ' ', `find src kernels -name '*.c' -o -name '*.cu' | LC_ALL=C sort`;
my (%source, %defined, %needed, @absent);
foreach my $path (@sources)
{
	(my $name = $path) =~ s{^src/|\.cu?$}{}g;
	$source{$name} = $path;
	fail("$path has no level: say in $layers_file where it belongs") unless level_of($name);
	my $object = object_of($name, $path);
	if (!$object)
	{
		push @absent, $path;
		next;
	}
	foreach my $symbol (split /\n/, `nm -P $object`)
	{
		my ($symbol_name, $type) = split ' ', $symbol;
		if    ($type eq 'U')              { $needed{$name}{$symbol_name} = 1; }
		elsif ($type =~ /^[A-TV-Z]$/)     { $defined{$symbol_name}{$name} = 1; }
	}
}

foreach my $folder (sort keys %levels)
{
	foreach my $pattern (map { @{ $_->{files} } } grep { ref } @{ $levels{$folder} })
	{
		next if $pattern =~ /\*$/ || $folder eq 'folders' || $source{"$folder/$pattern"};
		fail("$layers_file: there is no file $folder/$pattern");
	}
}

# Both programs may define a name; a file means that of its own folder.
my %arrow;
foreach my $from (keys %needed)
{
	my ($folder) = split m{/}, $from;
	foreach my $symbol (keys %{ $needed{$from} })
	{
		my @by = sort keys %{ $defined{$symbol} || {} };
		my @own = grep { m{^$folder/} } @by;
		my $to = (@own, grep({ !m{^pg/} } @by), @by)[0];
		push @{ $arrow{$from}{$to} }, $symbol if defined $to && $to ne $from;
	}
}

# ---- Against the order ----------------------------------------------------

# A call within a circle that is allowed.
sub allowed
{
	my ($from, $to) = @_;
	return grep { my %in = map { $_ => 1 } @$_; $in{$from} && $in{$to} } @circles;
}

my (@against, $arrows, $still);
my %checked;							# the arrows that must make no circle
foreach my $from (sort keys %arrow)
{
	foreach my $to (sort keys %{ $arrow{$from} })
	{
		my ($folder) = split m{/}, $from;
		my ($to_folder) = split m{/}, $to;
		my ($level, $name) = level_of($from);
		my ($to_level, $to_name) = level_of($to);
		my $wrong = '';

		$arrows++;
		next unless defined $level && defined $to_level;
		if (!$may{$folder}{$to_folder})
		{
			$wrong = "$folder may not call $to_folder";
		}
		elsif ($folder eq $to_folder && $to_level > $level)
		{
			$wrong = "$name is below $to_name";
		}
		if (allowed($from, $to))
		{
			$still++;
			next;
		}
		my @symbols = sort @{ $arrow{$from}{$to} };
		push @against, sprintf "%-24s -> %-24s (%s) %s", $from, $to, $wrong,
		  join ', ', @symbols > 3 ? (@symbols[0 .. 2], "...") : @symbols
		  if $wrong;
		$checked{$from}{$to} = 1;
	}
}

# Tarjan's strongly connected components, of all arrows or of those that must make none.
sub circles_of
{
	my $arrows = shift;
	my (%index, %low, %on, @stack, @found, $visit);
	my $next = 0;

	$visit = sub {
		my $file = shift;

		$index{$file} = $low{$file} = $next++;
		push @stack, $file;
		$on{$file} = 1;
		foreach my $to (sort keys %{ $arrows->{$file} || {} })
		{
			if (!defined $index{$to})
			{
				$visit->($to);
				$low{$file} = $low{$to} if $low{$to} < $low{$file};
			}
			elsif ($on{$to} && $index{$to} < $low{$file})
			{
				$low{$file} = $index{$to};
			}
		}
		return if $low{$file} != $index{$file};
		my @members;
		do { push @members, pop @stack; $on{ $members[-1] } = 0; } while $members[-1] ne $file;
		push @found, [ sort @members ] if @members > 1;
	};
	no warnings 'recursion';
	defined $index{$_} or $visit->($_) foreach sort keys %$arrows;
	return @found;
}

printf "%d files, %d arrows between them\n", scalar @sources, $arrows || 0;
print "not compiled here: @absent\n" if @absent;
my @all = circles_of(\%arrow);
printf "circles: %d\n", scalar @all;
printf "    %2d files: %s\n", scalar @$_, join ' ', @$_ foreach @all;
printf "in circles that are allowed: %d arrows\n", $still || 0;
if (@against)
{
	fail(scalar(@against) . " arrows against the order:");
	print "    $_\n" foreach @against;
}
foreach my $circle (circles_of(\%checked))
{
	fail("a circle of " . scalar(@$circle) . " files:");
	foreach my $from (@$circle)
	{
		my @to = grep { $checked{$from}{$_} } @$circle;
		printf "    %-24s -> %s\n", $from, join ' ', @to;
	}
}
foreach my $circle (@circles)
{
	fail("no such circle any more: @$circle") unless grep { "@$_" eq "@{[sort @$circle]}" } @all;
}

# ---- Includes -------------------------------------------------------------

foreach my $path (split ' ', `find src kernels -type f -name '*.[ch]*' | LC_ALL=C sort`)
{
	my ($folder) = $path =~ m{^(?:src/)?(\w+)/};

	next unless $path =~ /\.(c|h|cu|cuh)$/;
	open my $file, '<', $path or die "$path: $!\n";
	while (<$file>)
	{
		if (/^\s*#\s*include\s+["<]((\w+)\/.*|postgres\.h)[">]/)
		{
			my ($included, $of) = ($1, $2);
			fail("$path:$. includes $included") if $included eq 'postgres.h' && $folder ne 'pg';
			fail("$path:$. includes $included, and $folder may not call $of")
			  if defined $of && $may{$of} && -f "src/$included" && !$may{$folder}{$of};
		}
		fail("$path:$. uses malloc") if $folder eq 'common' && /\b(malloc|calloc|realloc)\s*\(/;
	}
	close $file;
}

# ---- The same table in doc/architecture.md ----------------------------------

my $doc = "doc/architecture.md";
if (open my $file, '<', $doc)
{
	my $text = do { local $/; <$file> };
	close $file;
	if (index($text, "```\n$table```\n") < 0)
	{
		if ($write && $text =~ s/```\n\[folders\]\n.*?```\n/```\n$table```\n/s)
		{
			open my $out, '>', $doc or die "$doc: $!\n";
			print $out $text;
			close $out or die "$doc: $!\n";
			print "$doc: table of layers written anew\n";
		}
		else
		{
			fail("$doc prints another table of layers: test/structure/layers.pl --write");
		}
	}
}

print $failed ? "layers: $failed failed\n" : "layers: ok\n";
exit($failed ? 1 : 0);
